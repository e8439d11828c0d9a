"""Plan and export read a config.json in one way: the same numbers, and the same configs refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import GEMMA1, GEMMA2

from rk_gemma.checkpoint import read_spec
from rk_gemma.planning.sources import request_of
from rk_gemma_runtime.errors import CheckpointError, UsageError
from rk_gemma_runtime.memory.shape import from_config

if TYPE_CHECKING:
    from pathlib import Path

BOTH = {"gemma": GEMMA1, "gemma2": GEMMA2}
# Fields that transformers has defaults for, as it fills them in.
DEFAULTS = {"head_dim": 256, "max_position_embeddings": 8192}


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k != key}


def written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("key", DEFAULTS)
@pytest.mark.parametrize("family", BOTH)
def test_a_number_that_is_left_out_is_transformers_own(family: str, key: str, tmp_path: Path) -> None:
    folder = written(tmp_path, without(BOTH[family], key))
    spec, request = read_spec(folder).shape, request_of(str(folder), 64, "").shape
    assert {getattr(shape, {"max_position_embeddings": "context"}.get(key, key)) for shape in (spec, request)} == {
        DEFAULTS[key]
    }


@pytest.mark.parametrize("family", BOTH)
def test_both_read_the_same_shape(family: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {**BOTH[family], "head_dim": None})
    spec, request = read_spec(folder).shape, request_of(str(folder), 64, "").shape
    assert (spec.parameters, spec.head_dim, spec.norms) == (request.parameters, request.head_dim, request.norms)


def test_other_families_divide_where_transformers_does() -> None:
    plain = {**without(GEMMA2, "head_dim"), "model_type": "llama"}
    assert from_config(plain, "x").head_dim == GEMMA2["hidden_size"] // GEMMA2["num_attention_heads"]
    assert from_config({**plain, "model_type": "qwen3"}, "x").head_dim == 128


REFUSED = {
    "gemma3_text": {"model_type": "gemma3_text"},
    "gemma3": {"model_type": "gemma3", "text_config": {**GEMMA2, "model_type": "gemma3_text"}},
    "gemma3, inner without a type": {"model_type": "gemma3", "text_config": without(GEMMA2, "model_type")},
    "paligemma": {"model_type": "paligemma", "text_config": GEMMA1},
    "paligemma 2": {"model_type": "paligemma", "text_config": GEMMA2},
    "gemma3n": {"model_type": "gemma3n", "text_config": {**GEMMA2, "model_type": "gemma3n_text"}},
    "gemma4": {"model_type": "gemma4"},
    "recurrent": {"model_type": "recurrent_gemma"},
    "t5gemma": {"model_type": "t5gemma"},
    "a Gemma in another": {"model_type": "llava", "text_config": GEMMA2},
    "a Gemma with a text part": {"model_type": "gemma2", "text_config": GEMMA2},
    "no type, but the architecture": {"model_type": None, "architectures": ["Gemma3ForCausalLM"]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_gemma_1_or_2_is_refused_alike(case: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {**GEMMA2, **REFUSED[case]})
    words = r"model_type .* is not Gemma 1 or 2 \(supported: gemma, gemma2\)"
    with pytest.raises(UsageError, match=words):
        request_of(str(folder), 64, "")
    with pytest.raises(CheckpointError, match=words):
        read_spec(folder)


@pytest.mark.parametrize("key", ["num_key_value_heads", "intermediate_size", "hidden_size", "vocab_size"])
def test_what_has_no_default_is_missed_alike(key: str, tmp_path: Path) -> None:
    folder = written(tmp_path, without(GEMMA2, key))
    with pytest.raises(UsageError, match=f"no '?{key}"):
        request_of(str(folder), 64, "")
    with pytest.raises(CheckpointError, match=f"no '?{key}"):
        read_spec(folder)
