"""The simulator computes docs/simulator.md: against a NumPy reference and against transformers' logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from reference import Reference, SimModel, read
from simlib import GET_HIDDEN, GET_LOGITS, Handle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simlib import Abi
    from simwriter import Checkpoint

pytestmark = pytest.mark.board

TINY = ("tiny-gemma1", "tiny-gemma2")
PROMPTS = range(8)
# An activation this close to the middle between two steps may be rounded either way when float sums are
# taken in another order; from there on two right implementations differ.
NEAR_A_TIE = 2e-4


class Float32(Reference):
    """The same model with the checkpoint's float32 weights."""

    def linear(self, name: str, x: Any) -> Any:
        return self.model.tensors[name].astype(np.float32) @ x


@pytest.mark.parametrize("name", TINY)
def test_the_reference_itself_is_transformers_model(
    name: str, checkpoints: dict[str, Checkpoint], golden: dict[str, Any]
) -> None:
    checkpoint = checkpoints[name]
    keys = {key: str(value) for key, value in checkpoint.header("fp16").items()}
    model = SimModel(keys, {k: v.reshape(1, -1) if v.ndim == 1 else v for k, v in checkpoint.weights.items()})
    for i in PROMPTS:
        logits, _ = Float32(model).run(golden[name][f"prompt_{i}"].tolist())
        assert np.abs(logits - golden[name][f"logits_{i}"]).max() < 5e-4


@pytest.mark.parametrize("name", TINY)
def test_fp16_logits_and_greedy_tokens(
    name: str, abi: Abi, model: Callable[[str, str], Path], golden: dict[str, Any]
) -> None:
    path = model(name, "fp16")
    sim = read(path)
    with Handle(abi, path) as handle:
        for i in PROMPTS:
            ids = golden[name][f"prompt_{i}"].tolist()
            values = handle.run(ids, mode=GET_LOGITS).values
            assert values is not None
            assert np.abs(values - Reference(sim).run(ids)[0]).max() < 2e-4
            assert np.abs(values - golden[name][f"logits_{i}"]).max() < 5e-3
            assert handle.run(ids, new=24).tokens == golden[name][f"greedy_{i}"].tolist()


@pytest.mark.parametrize("name", TINY)
def test_weights_of_16_bits(name: str, abi: Abi, model: Callable[[str, str], Path], golden: dict[str, Any]) -> None:
    """What a bf16 checkpoint becomes. Rounding these float32 ones moves the logits; the greedy tokens hold."""
    path = model(name, "fp16-rounded")
    sim = read(path)
    with Handle(abi, path) as handle:
        for i in PROMPTS:
            ids = golden[name][f"prompt_{i}"].tolist()
            values = handle.run(ids, mode=GET_LOGITS).values
            assert values is not None
            assert np.abs(values - Reference(sim).run(ids)[0]).max() < 2e-4
            assert handle.run(ids, new=24).tokens == golden[name][f"greedy_{i}"].tolist()


@pytest.mark.parametrize("name", TINY)
def test_hidden_states(name: str, abi: Abi, model: Callable[[str, str], Path], golden: dict[str, Any]) -> None:
    ids = golden[name]["prompt_7"].tolist()
    path = model(name, "fp16")
    with Handle(abi, path) as handle:
        run = handle.run(ids, mode=GET_HIDDEN)
    assert run.states == [0, 2] and run.values is not None
    assert np.abs(run.values - Reference(read(path)).run(ids)[1]).max() < 2e-4
    assert np.abs(run.values - golden[name]["hidden_7"][-1]).max() < 0.1


def agree_until_a_tie(path: Path, ids: list[int], values: Any) -> None:
    reference = Reference(read(path))
    wanted, _ = reference.run(ids)
    wrong = np.nonzero(np.abs(values - wanted).max(1) > 1e-3)[0]
    if len(wrong):
        assert min(reference.ties[: wrong[0] + 1]) < NEAR_A_TIE
        assert np.abs(values - wanted).max() < 0.5


@pytest.mark.parametrize("name", TINY)
def test_w8a8_equals_the_reference(
    name: str, abi: Abi, model: Callable[[str, str], Path], golden: dict[str, Any]
) -> None:
    path = model(name, "w8a8")
    with Handle(abi, path) as handle:
        for i in PROMPTS:
            ids = golden[name][f"prompt_{i}"].tolist()
            agree_until_a_tie(path, ids, handle.run(ids, mode=GET_LOGITS).values)


@pytest.mark.parametrize("dtype", ["w8a8", "w8a8_g128", "w8a8_g256", "w8a8_g512"])
def test_groups_equal_the_reference(dtype: str, abi: Abi, model: Callable[[str, str], Path]) -> None:
    path = model("synthetic", dtype)
    ids = np.random.default_rng(3).integers(3, 256, 20).tolist()
    with Handle(abi, path) as handle:
        values = handle.run(ids, mode=GET_LOGITS).values
    assert values is not None and len(values) == len(ids)
    agree_until_a_tie(path, ids, values)


def test_more_tokens_than_one_block(abi: Abi, model: Callable[[str, str], Path]) -> None:
    path = model("synthetic", "w8a8_g128")
    ids = np.random.default_rng(4).integers(3, 256, 100).tolist()
    with Handle(abi, path) as handle:
        agree_until_a_tie(path, ids, handle.run(ids, mode=GET_LOGITS).values)
