"""config.json in both spellings, and every way in which it is none of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import DATA, GEMMA1, GEMMA2, shapes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rk_gemma.checkpoint import read_spec
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec

    Read = Callable[..., ModelSpec]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """read(config, generation) writes both files and reads the spec."""

    def call(config: Any, generation: Any = None) -> ModelSpec:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return read_spec(tmp_path)

    return call


@pytest.mark.parametrize("name", ["tiny-gemma1", "tiny-gemma2"])
def test_both_spellings_mean_the_same(name: str, read: Read) -> None:
    hub = read((DATA / name / "config_hub_style.json").read_text())
    assert hub == read_spec(DATA / name)


def test_gemma2_facts() -> None:
    spec = read_spec(DATA / "tiny-gemma2")
    shape = spec.shape
    assert (shape.family, shape.vocab, shape.hidden, shape.layers, shape.ffn) == ("gemma2", 512, 64, 4, 160)
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.context, shape.norms) == (4, 2, 16, 128, 4)
    assert (spec.attn_softcap, spec.final_softcap, spec.window, spec.query_scalar) == (50.0, 30.0, 16, 16.0)
    assert spec.sliding == (True, False, True, False)
    assert spec.post_norms


def test_gemma1_has_none_of_gemma2s(read: Read) -> None:
    spec = read({**GEMMA1, "attn_logit_softcapping": 50.0, "sliding_window": 8, "query_pre_attn_scalar": 7})
    assert (spec.attn_softcap, spec.final_softcap, spec.window, spec.query_scalar) == (0.0, 0.0, 0, 16.0)
    assert not any(spec.sliding)
    assert not spec.post_norms


@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
def test_parameter_count(config: dict[str, Any], read: Read) -> None:
    count = 0
    for shape in shapes_of(config).values():
        count += shape[0] * (shape[1] if len(shape) == 2 else 1)
    assert read(config).shape.parameters == count


@pytest.mark.parametrize(
    ("config", "generation", "eos"),
    [
        (GEMMA2, None, (1,)),
        (GEMMA2, {"eos_token_id": [1, 107]}, (1, 107)),
        (GEMMA2, {"eos_token_id": [107, 1, 107]}, (107, 1)),
        (GEMMA2, {"eos_token_id": 107}, (107,)),
        (GEMMA2, {"bos_token_id": 2}, (1,)),
        ({**GEMMA2, "eos_token_id": [1, 107]}, None, (1, 107)),
        ({**GEMMA2, "eos_token_id": None}, None, (1,)),
    ],
)
def test_end_ids(config: dict[str, Any], generation: Any, eos: tuple[int, ...], read: Read) -> None:
    assert read(config, generation).eos == eos


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    ("change", "theta"),
    [
        ({"rope_scaling": None}, 7e3),
        ({"rope_scaling": {}}, 7e3),
        ({"rope_scaling": {"rope_type": "default"}}, 7e3),
        ({"rope_scaling": {"type": "default"}}, 7e3),
        ({"rope_scaling": {"type": "default", "rope_type": "default", "factor": 1.0}}, 7e3),
        ({"rope_scaling": {"type": "linear", "factor": 1.0}}, 7e3),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 5e3}}, 5e3),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e3}, "rope_scaling": None}, 5e3),
        ({"rope_parameters": {"rope_theta": 5e3}}, 5e3),
        ({"rope_parameters": {"rope_theta": 5e3, "partial_rotary_factor": 1.0}}, 5e3),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5e3}, "sliding_attention": {"rope_theta": 5e3}}}, 5e3),
    ],
)
def test_plain_positions(change: Any, theta: float, bare: bool, read: Read) -> None:
    config = {k: v for k, v in GEMMA2.items() if k != "rope_theta"} if bare else {**GEMMA2, "rope_theta": 7e3}
    assert read({**config, **change}).rope_theta == (1e4 if bare and theta == 7e3 else theta)


def test_layer_types_override_the_pattern(read: Read) -> None:
    assert read({**GEMMA2, "layer_types": ["full_attention", "sliding_attention"]}).sliding == (False, True)


@pytest.mark.parametrize("missing", sorted(k for k in GEMMA2 if k.startswith(("num_", "vocab", "hidden_size"))))
def test_missing_key_is_named(missing: str, read: Read) -> None:
    with pytest.raises(CheckpointError, match=missing):
        read({k: v for k, v in GEMMA2.items() if k != missing})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"model_type": "gemma3_text"}, "gemma3_text"),
        ({"model_type": None}, "not Gemma 1 or 2"),
        ({"model_type": ["gemma2"]}, "not Gemma 1 or 2"),
        ({"hidden_activation": "silu"}, "silu"),
        ({"hidden_activation": ["gelu"]}, "activation"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling has type 'linear' by 2"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope_scaling has type 'dynamic' by 4"),
        ({"rope_scaling": {"rope_type": "longrope", "type": "default"}}, "rope_scaling has type 'longrope':"),
        ({"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rope_scaling turns a part"),
        ({"rope_scaling": [1]}, "rope_scaling is not"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "rope_parameters has type 'yarn' by 2"),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "llama3"}}, "rope_scaling.*llama3"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
            "differ between kinds",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8}, "sliding_attention": {}}},
            "full_attention has type 'linear' by 8",
        ),
        ({"rope_parameters": [1]}, "config.json"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"layer_types": 3}, "config.json"),
        ({"hidden_size": 0}, "hidden"),
        ({"num_hidden_layers": -1}, "layers"),
        ({"head_dim": 15}, "impossible"),
        ({"num_key_value_heads": 3}, "impossible"),
        ({"vocab_size": "many"}, "config.json"),
        ({"vocab_size": float("inf")}, "config.json"),
        ({"sliding_window": float("inf")}, "config.json"),
        ({"max_position_embeddings": None}, "config.json"),
        ({"eos_token_id": "one"}, "config.json"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar|query_scalar"),
        ({"query_pre_attn_scalar": -4}, "query_pre_attn_scalar|query_scalar"),
        ({"rms_norm_eps": float("nan")}, "rms"),
        ({"rope_theta": -10000.0}, "rope"),
        ({"bos_token_id": 128}, "bos"),
        ({"eos_token_id": [1, -5]}, "eos"),
    ],
)
def test_refused(change: dict[str, Any], says: str, read: Read) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        read({**GEMMA2, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"a"', "null", "[" * 100_000, '{"vocab_size": ' + "1" * 5000 + "}"]
)
def test_not_a_json_object(text: str, read: Read) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read(text)


def test_config_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_spec(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_spec(tmp_path)


@pytest.mark.parametrize("generation", [[], 3, {"eos_token_id": "x"}, {"eos_token_id": {"a": 1}}])
def test_damaged_generation_config(generation: Any, read: Read) -> None:
    with pytest.raises(CheckpointError):
        read(GEMMA2, generation)


values = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=4)
nested = st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=9), values, max_size=2)
KEYS = [*GEMMA2, "layer_types", "rope_parameters", "rope_scaling", "attention_bias", "hidden_act"]


@given(key=st.sampled_from(KEYS), value=values | nested)
@settings(max_examples=250, deadline=None)
def test_any_value_anywhere(key: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A spec or a CheckpointError: never another exception."""
    directory = tmp_path_factory.getbasetemp() / "any-config"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**GEMMA2, key: value}))
    try:
        read_spec(directory)
    except CheckpointError as error:
        assert "config.json" in str(error)
