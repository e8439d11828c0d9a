"""The door: what is not a number, out of its range or of another type raises where it is given, and loads nothing."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from rk_gemma_runtime import Limits, Options, PromptError, Sampling, UsageError
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_NUMBERS = [math.nan, math.inf, -math.inf, "1", b"1", None, True, [1], 1j, 10**400, object()]
NOT_TEXTS = [None, 1, b"x", ["x"], "a\0b"]
IN_RANGE = {
    "temperature": [0, 2, 1e-6, 100],
    "top_k": [0, 1, 2**31 - 1],
    "top_p": [0, 1, 0.5],
    "repeat_penalty": [0.01, 100, 1],
    "frequency_penalty": [-100, 100],
    "presence_penalty": [-100, 100],
}
OUT_OF_RANGE = {
    "temperature": [-1e-9, 100.1],
    "top_k": [-1, 2**31, 40.0, 0.5],
    "top_p": [-0.1, 1.0001],
    "repeat_penalty": [0, -1, 1e9],
    "frequency_penalty": [-101, 1e300],
    "presence_penalty": [-101, 1e300],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in IN_RANGE.items() for v in values])
def test_sampling_in_its_range_is_taken_as_pythons_own_numbers(name: str, value: float) -> None:
    checked = Sampling(**{name: value}).check()
    assert getattr(checked, name) == value
    assert {f.name: type(getattr(checked, f.name)) for f in fields(checked)} == {
        f.name: int if f.name == "top_k" else float for f in fields(checked)
    }


def test_numpys_numbers_become_pythons() -> None:
    np = pytest.importorskip("numpy")
    checked = Sampling(np.float32(0.5), np.int64(7), np.float64(0.25)).check()
    assert (checked.temperature, checked.top_k, checked.top_p) == (0.5, 7, 0.25)
    assert type(checked.temperature) is float
    assert type(checked.top_k) is int


@pytest.mark.parametrize("name", [f.name for f in fields(Sampling)])
def test_what_is_no_number_is_named(name: str) -> None:
    for value in [*NOT_NUMBERS, *OUT_OF_RANGE[name]]:
        with pytest.raises(UsageError, match=name) as caught:
            Sampling(**{name: value}).check()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 160


@pytest.mark.parametrize("name", [f.name for f in fields(Limits)])
def test_limits_too(name: str) -> None:
    for value in [*NOT_NUMBERS, -1, 1e300, *([1.5] if name == "breakdowns" else [])]:
        with pytest.raises(UsageError, match=name):
            replace(Options(), limits=replace(Limits(), **{name: value})).check()
        with pytest.raises(UsageError, match=name):
            Limits().changed({name: value})


WRONG: dict[str, list[Any]] = {
    "backend": ["gpu", "NPU", "", None, 1, b"npu", ["npu"]],
    "librkllmrt": [*(v for v in NOT_TEXTS)],
    "context": [-1, 1.5, "512", None, True, 2**31, math.nan],
    "threads": [-1, 1.5, "4", None, True, 10**6],
    "limits": [None, {}, 5],
    "sampling": ["greedy", {}, 5, Sampling(temperature=math.nan)],
    "adapter": NOT_TEXTS,
    "adapter_scale": [*NOT_NUMBERS, 1e30],
    "domain": [-1, 16, "0", None, True, 0.0],
    "force": [1, "no", None],
    "shrink": [0, "yes", None],
    "board": ["rock-5b", 16, {}],
}


def test_every_option_is_in_the_table() -> None:
    assert WRONG.keys() == {f.name for f in fields(Options)}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_options_of_another_type_or_out_of_range(name: str, value: Any, tiny_bundle: Path) -> None:
    options = replace(Options(), **{name: value})
    with pytest.raises(UsageError):
        options.check()
    with pytest.raises(UsageError):
        Model(Bundle.open(tiny_bundle), options, load=False)
    assert Options().check() == Options()


def test_a_library_may_be_a_path(tmp_path: Path) -> None:
    assert replace(Options(), librkllmrt=tmp_path).check().librkllmrt == str(tmp_path)  # type: ignore[arg-type]


@pytest.fixture
def model(tiny_bundle: Path) -> Iterator[Model]:
    """Not loaded: nothing of this may be needed to refuse."""
    with Model(Bundle.open(tiny_bundle), load=False) as model:
        yield model
        assert model.worker_pid is None


@pytest.mark.parametrize("value", [0, -1, 1.0, "5", True, math.nan, 2**31, 10**400])
def test_max_tokens(value: Any, model: Model) -> None:
    with pytest.raises(UsageError, match="max_tokens"):
        model.answer([2, 5], max_tokens=value)


@pytest.mark.parametrize("ids", ["2,5", b"25", 7, None, [2, "5"], [2, 5.0], [None], {2: 5.5, "x": 1}, [[2]]])
def test_ids_of_another_type(ids: Any, model: Model) -> None:
    with pytest.raises(UsageError):
        model.answer(ids)


@pytest.mark.parametrize("ids", [[], [-1], [2, 10**9], [2, 2**31], [2, 2**63], [2, 10**400], [2, -(10**400)]])
def test_ids_that_the_model_does_not_have(ids: list[int], model: Model) -> None:
    with pytest.raises(PromptError):
        model.answer(ids)


@pytest.mark.parametrize("sampling", [0.8, {"temperature": 1}, "greedy", Sampling(top_p=math.nan)])
def test_sampling_of_an_answer(sampling: Any, model: Model) -> None:
    with pytest.raises(UsageError):
        model.answer([2, 5], sampling=sampling)


def test_top_p_0_is_greedy() -> None:
    assert Sampling(top_p=0).greedy
    assert Sampling(temperature=0).greedy
    assert Sampling(top_k=1).greedy
    assert not Sampling().greedy
