"""Names that wrappers changed: recognised and said, or refused by the right reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import GEMMA1, GEMMA2, random_weights, write_checkpoint, write_safetensors

from rk_gemma.checkpoint import Checkpoint
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def opened(tmp_path: Path, rename: Callable[[str], str], config: Any = GEMMA2) -> Checkpoint:
    weights = random_weights(config)
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, config, {rename(k): v for k, v in weights.items()}))
    assert set(checkpoint.tensors) == set(weights)
    assert all(np.array_equal(checkpoint.tensors[name].read(), values) for name, values in weights.items())
    return checkpoint


@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod.", "_orig_mod.module.", "model.",
     "language_model.", "_fsdp_wrapped_module.", "student.", "transformer.decoder."],
)  # fmt: skip
def test_a_prefix_is_taken_off_and_said(prefix: str, config: Any, tmp_path: Path) -> None:
    notes = opened(tmp_path, lambda name: prefix + name, config).notes
    assert len(notes) == 1 and repr(prefix) in notes[0]


def test_no_prefix_at_all(tmp_path: Path) -> None:
    notes = opened(tmp_path, lambda name: name.removeprefix("model.")).notes
    assert len(notes) == 1 and "lack 'model.'" in notes[0]


@pytest.mark.parametrize("prefix", ["transformer.", "_orig_mod.", "module."])
def test_another_word_in_the_place_of_model(prefix: str, tmp_path: Path) -> None:
    assert len(opened(tmp_path, lambda name: prefix + name.removeprefix("model.")).notes) == 1


@pytest.mark.parametrize("word", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"])
def test_single_layers_were_wrapped(word: str, tmp_path: Path) -> None:
    notes = opened(tmp_path, lambda name: name.replace(".self_attn", f".{word}.self_attn")).notes
    assert len(notes) == 1 and word in notes[0]


def test_plain_names_need_no_word(tmp_path: Path) -> None:
    assert opened(tmp_path, str).notes == ()


def test_a_name_in_both_forms(tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    write_checkpoint(tmp_path, GEMMA2, {**weights, "_orig_mod.model.norm.weight": weights["model.norm.weight"]})
    with pytest.raises(CheckpointError, match=r"are both model\.norm\.weight"):
        Checkpoint.open(tmp_path)


def test_two_models(tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    twice = {f"{who}.{name}": values for who in ("student", "teacher") for name, values in weights.items()}
    write_checkpoint(tmp_path, GEMMA2, twice)
    with pytest.raises(CheckpointError, match=r"2 models in one checkpoint .*student"):
        Checkpoint.open(tmp_path)


def test_the_model_and_its_average(tmp_path: Path) -> None:
    """transformers takes the names that are its own; the rest is said."""
    weights = random_weights(GEMMA2)
    both = {**weights, **{f"ema.{name}": values * 2 for name, values in weights.items()}}
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, GEMMA2, both))
    assert np.array_equal(checkpoint.tensors["model.norm.weight"].read(), weights["model.norm.weight"])
    assert len(checkpoint.notes) == 1 and "left out: ema." in checkpoint.notes[0]


def test_a_missing_tensor_is_called_as_transformers_calls_it(tmp_path: Path) -> None:
    weights = {f"module.{name}": values for name, values in random_weights(GEMMA2).items()}
    del weights["module.model.norm.weight"]
    write_checkpoint(tmp_path, GEMMA2, {})
    write_safetensors(tmp_path / "model.safetensors", weights)
    with pytest.raises(CheckpointError, match=r"tensor model\.norm\.weight is missing"):
        Checkpoint.open(tmp_path)
