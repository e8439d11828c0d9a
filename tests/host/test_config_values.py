"""Values of a config by type and meaning: what no Gemma has is refused by the key and the file that state it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gguf
import pytest
from hosttools import GEMMA1, GEMMA2, errors_of, write_checkpoint

from rk_gemma.checkpoint import read_spec
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PYTHONS = ("argument", "NoneType", "object", "literal", "convert")  # words that only a Python error has
REALS = ("rms_norm_eps", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "rope_theta")
WHOLES = ("vocab_size", "hidden_size", "head_dim", "sliding_window", "bos_token_id", "eos_token_id")


@pytest.mark.parametrize("value", ["8", [8], True, {}, "x"])
@pytest.mark.parametrize("key", [*REALS, *WHOLES])
def test_not_a_number(key: str, value: Any, tmp_path: Path) -> None:
    given = ["8"] if (key, value) == ("eos_token_id", [8]) else value  # a list of ids is right there
    (tmp_path / "config.json").write_text(json.dumps({**GEMMA2, key: given}))
    with pytest.raises(CheckpointError, match=f"impossible {key}") as caught:
        read_spec(tmp_path)
    assert not any(word in str(caught.value) for word in PYTHONS)


@pytest.mark.parametrize("value", [8.0, 8.5, float("inf"), float("nan")])
@pytest.mark.parametrize("key", WHOLES)
def test_not_a_whole_number(key: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**GEMMA2, key: value}))
    with pytest.raises(CheckpointError, match=f"impossible {key} {value!r}"):
        read_spec(tmp_path)


@pytest.mark.parametrize("value", [1e308, 10**31, 10**400, float("inf"), float("nan"), -1e308])
@pytest.mark.parametrize("key", REALS)
def test_no_float32(key: str, value: float, tmp_path: Path) -> None:
    """The files for both engines hold float32."""
    (tmp_path / "config.json").write_text(json.dumps({**GEMMA2, key: value}))
    with pytest.raises(CheckpointError, match=f"impossible {key}"):
        read_spec(tmp_path)


@pytest.mark.parametrize("key", [*REALS, *WHOLES, "model_type", "hidden_activation", "layer_types"])
def test_a_value_of_any_length_makes_a_short_line(key: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**GEMMA2, key: ["a" * 10_000] * 2}))
    with pytest.raises(CheckpointError) as caught:
        read_spec(tmp_path)
    assert key in str(caught.value) or "activation" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", ["x", 1.5, True, [[1]], {}, [1, "2"]])
def test_the_file_that_states_the_ends_is_named(value: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GEMMA2))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: .*impossible eos_token_id"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "says"),
    [("Gemma2ForSequenceClassification", "for sequence classification"),
     ("GemmaForTokenClassification", "for token classification"), ("BiGemma2ForRetrieval", "for retrieval")],
)  # fmt: skip
@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
def test_a_model_for_another_task(
    config: Any, architecture: str, says: str, tmp_path: Path, main: Callable[..., Any]
) -> None:
    source = write_checkpoint(tmp_path / "src", {**config, "architectures": [architecture]})
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert f"a model {says}, not one that writes" in errors_of(done.stderr)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize(
    "names", [["Gemma2ForCausalLM"], ["Gemma2Model"], ["AutoModelForCausalLMWithValueHead"], None]
)
def test_a_model_that_writes(names: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**GEMMA2, "architectures": names}))
    assert read_spec(tmp_path).post_norms


@pytest.mark.parametrize(
    ("change", "says"),
    [({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
     ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
     ({"layer_types": ["full_attention", "chunked_attention"]}, "'chunked_attention'"),
     ({"layer_types": ["full_attention", {}]}, "layer_types has {}"),
     ({"layer_types": 5}, "layer_types has 5 for 2 layers")],
)  # fmt: skip
def test_another_attention(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**GEMMA2, **change}))
    with pytest.raises(CheckpointError, match=says):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "window"), [("ff", 8), ("ff", 0), ("ss", 64), ("fs", 64), ("sf", 64), ("sf", None)]
)  # fmt: skip
def test_windows_that_never_end_are_no_windows(kinds: str, window: int | None, tmp_path: Path) -> None:
    """llama.cpp can slide on even layers only, which does not matter where no token ever leaves the window."""
    names = {"f": "full_attention", "s": "sliding_attention"}
    config = {**GEMMA2, "sliding_window": window, "layer_types": [names[kind] for kind in kinds]}
    export(write_checkpoint(tmp_path / "src", config), tmp_path / "out", Options("none"))
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["gemma2.attention.sliding_window"].contents() == 64


@pytest.mark.parametrize("kinds", ["ss", "fs"])
def test_windows_on_other_layers(kinds: str, tmp_path: Path) -> None:
    names = {"f": "full_attention", "s": "sliding_attention"}
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, "layer_types": [names[kind] for kind in kinds]})
    with pytest.raises(CheckpointError, match="--cpu none"):
        export(source, tmp_path / "out", Options())
    assert export(source, tmp_path / "out", Options(cpu="none")).manifest.npu
