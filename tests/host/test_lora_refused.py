"""Adapters that `rk-gemma export --lora-adapter` refuses: one line, exit code 3, nothing written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import GEMMA1, GEMMA2, errors_of, write_checkpoint, write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from lorakit import CONFIG, halves, module_names, write_peft

from rk_gemma.checkpoint import read_spec
from rk_gemma.export.lora.adapter import LoraAdapter
from rk_gemma.export.lora.peft import NOT_PLAIN, family_of
from rk_gemma.export.lora.sources import LoraSource
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = module_names(range(2))
FIRST = f"base_model.model.{NAMES[0]}.lora_A.weight"
PREFIX = "base_model.model.model"
FILE = "adapter_model.safetensors"


@pytest.fixture
def refused(tmp_path: Path, main: Callable[..., Any]) -> Callable[..., str]:
    """refused(*values): the one error line of an export with these --lora-adapter values; relative to `tmp_path`."""

    def call(*values: str) -> str:
        source = write_checkpoint(tmp_path / "src")
        options = [word for value in values for word in ("--lora-adapter", value)]
        before = sorted(p.name for p in tmp_path.iterdir())
        done = main("export", source, "-o", tmp_path / "b", *options)
        assert (done.code, done.stdout) == (3, "")
        assert sorted(p.name for p in tmp_path.iterdir()) == before
        (line,) = errors_of(done.stderr)
        return line

    return call


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type 'IA3' is not LORA"),
    "no method": ({"peft_type": None}, "peft_type None"),
    "dora": ({"use_dora": True}, "use_dora is set"),
    "saved modules": ({"modules_to_save": ["norm"]}, "modules_to_save is set"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
    "bias": ({"bias": "lora_only"}, "bias is 'lora_only'"),
    "changed base": ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
    "changed base too": ({"init_lora_weights": ["olora"]}, "changed base weights"),
    "embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, "target module embed_tokens"),
    "head": ({"target_modules": ["model.lm_head"]}, "target module model.lm_head"),
    "another model's layer": ({"target_modules": ["query_key_value"]}, "target module query_key_value"),
    "other family": ({"base_model_name_or_path": "google/gemma-2b-it"}, "google/gemma-2b-it, which is gemma;"),
    "gemma 3": ({"base_model_name_or_path": "google/gemma-3-1b-it"}, "which is gemma3"),
    "other class": ({"auto_mapping": {"base_model_class": "GemmaForCausalLM"}}, "GemmaForCausalLM, which is gemma;"),
    "no rank": ({"r": None}, "impossible r None"),
    "rank 0": ({"r": 0}, "impossible r 0"),
    "rank 5000": ({"r": 5000}, "impossible r 5000"),
    "rank is true": ({"r": True}, "impossible r True"),
    "rank is text": ({"r": "4"}, "impossible r '4'"),
    "another rank": ({"r": 8}, "wants [8, 64]"),
    "another rank by pattern": ({"rank_pattern": {"down_proj": 2}}, "down_proj.lora_A.weight has shape [4, 128]"),
    "rank pattern of text": ({"rank_pattern": {"down_proj": "2"}}, "impossible rank_pattern down_proj '2'"),
    "alpha 0": ({"lora_alpha": 0}, "impossible lora_alpha 0"),
    "alpha is NaN": ({"lora_alpha": float("nan")}, "impossible lora_alpha nan"),
    "alpha is infinite": ({"alpha_pattern": {"q_proj": float("inf")}}, "impossible alpha_pattern q_proj inf"),
    "no such expression": ({"alpha_pattern": {"q_proj(": 2}}, "'q_proj(' is not a regular expression"),
    "patterns in a list": ({"rank_pattern": ["q_proj"]}, "not a usable LoRA config"),
    "targets in a number": ({"target_modules": 7}, "not a usable LoRA config"),
    "layers in words": ({"layers_to_transform": ["one"]}, "not a usable LoRA config"),
    "class in a list": ({"auto_mapping": ["GemmaForCausalLM"]}, "not a usable LoRA config"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    changes, says = CONFIGS[name]
    line = refused(str(write_peft(tmp_path / "peft", halves(GEMMA2, NAMES), **changes)))
    assert says in line.replace("want [", "wants [")
    assert str(tmp_path / "peft") in line


@pytest.mark.parametrize("key", NOT_PLAIN)
def test_every_kind_that_is_not_plain(key: str, tmp_path: Path) -> None:
    spec = read_spec(write_checkpoint(tmp_path / "src"))
    directory = write_peft(tmp_path / "peft", halves(GEMMA2, NAMES), **{key: {"x": 1}})
    with pytest.raises(CheckpointError, match=f"{key} is set, and only plain LoRA can be exported; "):
        LoraAdapter.open(LoraSource("x", directory), spec)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"LORA"', "\xff", "[" * 100_000])
def test_config_that_is_none(text: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    directory = write_peft(tmp_path / "peft", halves(GEMMA2, NAMES))
    (directory / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert "adapter_config.json: " in refused(str(directory))


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_key_that_is_missing(key: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    directory = write_peft(tmp_path / "peft", halves(GEMMA2, NAMES))
    (directory / "adapter_config.json").write_text(json.dumps({k: v for k, v in CONFIG.items() if k != key}))
    assert f"not a usable LoRA config: no '{key}'" in refused(str(directory))


def changed(**changes: Any) -> dict[str, Any]:
    """Tensors with some taken out (None), added or replaced."""
    return {k: v for k, v in {**halves(GEMMA2, NAMES), **changes}.items() if v is not None}


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


WEIGHTS: dict[str, tuple[dict[str, Any], str]] = {
    "no B": (changed(**{FIRST.replace("_A", "_B"): None}), f"{NAMES[0]} has lora_A only"),
    "no A": (changed(**{FIRST: None}), f"{NAMES[0]} has lora_B only"),
    "a module less": (halves(GEMMA2, NAMES[:-1]), f"nothing for {NAMES[-1]}, which adapter_config.json targets"),
    "nothing": ({}, "holds no LoRA weights"),
    "embedding": (changed(**{f"{PREFIX}.embed_tokens.lora_embedding_A": ones(4, 128)}), "embedding_A is not a LoRA"),
    "a whole module": (changed(**{f"{PREFIX}.norm.weight": ones(64)}), "model.norm.weight is not a LoRA weight"),
    "magnitudes": (changed(**{FIRST.replace("lora_A", "lora_magnitude_vector"): ones(64)}), "is not a LoRA weight"),
    "bias": (changed(**{FIRST.replace("A.weight", "B.bias"): ones(64)}), "lora_B.bias is not a LoRA weight"),
    "another model's layer": (changed(**{f"{PREFIX}.layers.0.self_attn.qkv_proj.lora_A.weight": ones(4, 64)}), "qkv"),
    "q_proj of the MLP": (changed(**{f"{PREFIX}.layers.0.mlp.q_proj.lora_A.weight": ones(4, 64)}), "mlp.q_proj"),
    "a layer more": (halves({**GEMMA2, "num_hidden_layers": 3}, module_names(range(3))), "has layer 2, the base"),
    "a wider base": (halves({**GEMMA2, "hidden_size": 72}, NAMES), "has shape [4, 72]"),
    "another base": (halves(GEMMA1, NAMES), "k_proj.lora_B.weight has shape [16, 4]"),
    "a vector": (changed(**{FIRST: ones(64)}), "has shape [64]"),
    "rank 0": (changed(**{FIRST: ones(0, 64)}), "has shape [0, 64]"),
    "twice": (changed(**{FIRST.removeprefix("base_model.model."): ones(4, 64)}), "are the same one"),
    "NaN": (changed(**{FIRST: ones(4, 64) * np.nan}), "q_proj.lora_A.weight holds NaN"),
    "infinity": (changed(**{FIRST.replace("_A", "_B"): ones(64, 4) * np.inf}), "lora_B.weight holds NaN or infi"),
    "nonsense": (changed(**{FIRST: ones(4, 64) * 1e20}), "holds a value of 1e+20"),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    weights, says = WEIGHTS[name]
    line = refused(str(write_peft(tmp_path / "peft", weights)))
    assert says in line
    assert str(tmp_path / "peft" / FILE) in line


@pytest.mark.parametrize(
    ("kind", "says"),
    [("truncated", "truncated"), ("empty", "no safetensors header"), ("a pointer", "Git LFS pointer"),
     ("a directory", "cannot be read: Is a directory"), ("none", f"no {FILE} here"), ("pickle", "a pickle")],
)  # fmt: skip
def test_weights_file(kind: str, says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    directory = write_peft(tmp_path / "peft", halves(GEMMA2, NAMES))
    file = directory / FILE
    raw = file.read_bytes()
    file.unlink()
    contents = {"truncated": raw[: len(raw) // 2], "empty": b"", "a pointer": b"version https://git-lfs"}
    if kind in contents:
        file.write_bytes(contents[kind])
    elif kind == "a directory":
        file.mkdir()
    elif kind == "pickle":
        (directory / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    line = refused(str(directory))
    assert says in line
    assert str(directory) in line


def test_the_hubs_sha256(tmp_path: Path, refused: Callable[..., str]) -> None:
    directory = write_peft(tmp_path / "peft", halves(GEMMA2, NAMES))
    note = directory / ".cache/huggingface/download" / f"{FILE}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{'c' * 40}\n{'0' * 64}\n1700000000.0\n")
    assert "sha256 differs from the hub's" in refused(str(directory))


@pytest.mark.parametrize(
    "value", ["nothing", "one=nothing", "one=" + "x" * 300, "src", "src/config.json", "a/b=c", "one="]
)
def test_no_adapter_there(value: str, tmp_path: Path, refused: Callable[..., str], monkeypatch: Any) -> None:
    write_checkpoint(tmp_path / "src")
    monkeypatch.chdir(tmp_path)
    line = refused(value)
    assert "adapter_config.json" in line


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "a\x1bb", "x" * 246, "bundle.yaml"])
def test_name_that_is_none(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    write_peft(tmp_path / "peft", halves(GEMMA2, NAMES))
    assert "is not a plain file name; give NAME=peft" in refused(f"{name}=peft")


def test_directory_without_a_name(refused: Callable[..., str]) -> None:
    assert "give NAME=/" in refused("/")


def test_two_of_one_name(tmp_path: Path, refused: Callable[..., str]) -> None:
    first, second = (str(write_peft(tmp_path / n / "style", halves(GEMMA2, NAMES))) for n in ("x", "y"))
    assert f"two adapters are named style; give one another name: NAME={second}" in refused(first, second)


@pytest.mark.parametrize(
    ("name", "family"),
    [("google/gemma-2b", "gemma"), ("google/gemma-7b-it", "gemma"), ("google/gemma-1.1-2b-it", "gemma"),
     ("google/codegemma-7b", "gemma"), ("unsloth/gemma-2b-bnb-4bit", "gemma"), ("GemmaForCausalLM", "gemma"),
     ("google/gemma-2-2b-it", "gemma2"), ("google/gemma-2-27b", "gemma2"), ("Gemma2ForCausalLM", "gemma2"),
     ("me/gemma2-tuned", "gemma2"), ("google/gemma-3-4b-it", "gemma3"), ("Gemma3ForCausalLM", "gemma3"),
     ("meta-llama/Llama-3.2-1B", None), ("/models/gemma-2b", None), ("./gemma-2b", None), ("a/b/gemma-2b", None),
     ("", None)],
)  # fmt: skip
def test_families_by_name(name: str, family: str | None) -> None:
    assert family_of(name) == family


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    values, lambda t: st.lists(t, max_size=2) | st.dictionaries(st.text(max_size=5), t, max_size=2), max_leaves=3
)


@given(key=st.sampled_from(sorted(CONFIG)), tree=trees)
@settings(max_examples=200, deadline=None)
def test_any_tree_in_any_key(key: str, tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An adapter or a CheckpointError."""
    root = tmp_path_factory.getbasetemp() / "any-config"
    spec = read_spec(write_checkpoint(root / "src", weights={}))
    directory = write_peft(root / "peft", {FIRST: ones(4, 64), FIRST.replace("_A", "_B"): ones(64, 4)},
                           **{"target_modules": "all-linear", key: tree})  # fmt: skip
    try:
        adapter = LoraAdapter.open(LoraSource("x", directory), spec)
    except CheckpointError as error:
        assert str(error).isprintable()
    else:
        assert np.isfinite(adapter.pairs[0].scaling)
        assert adapter.config.scaling > 0


def test_truncated_at_every_length(tmp_path: Path) -> None:
    spec = read_spec(write_checkpoint(tmp_path / "src", weights={}))
    pair = {FIRST: ones(4, 64), FIRST.replace("_A", "_B"): ones(64, 4)}
    directory = write_peft(tmp_path / "peft", pair, target_modules="all-linear")
    raw = write_safetensors(directory / FILE, pair).read_bytes()
    for length in {*range(0, len(raw), 17), *range(20), len(raw) - 1}:
        (directory / FILE).write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"truncated|no safetensors header"):
            LoraAdapter.open(LoraSource("x", directory), spec)
