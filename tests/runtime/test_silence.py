"""How long silence is borne: it counts while somebody waits, and by what the worker is doing."""

from __future__ import annotations

from dataclasses import fields

import pytest

from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.options import Changes, Limits, Options
from rk_gemma_runtime.supervisor.patience import Patience
from rk_gemma_runtime.supervisor.silence import SLICE_S, Silence

GIB = 1 << 30


def test_a_wait_counts_as_what_was_asked_for_however_long_it_took() -> None:
    silence = Silence(2.5)
    waits = 0
    while not silence.over:
        slice_s = silence.slice_s()
        assert 0 < slice_s <= SLICE_S
        silence.passed(slice_s)  # a program that was stopped for an hour meanwhile says the same
        waits += 1
    assert waits == 3


def test_a_sign_starts_it_again_with_another_limit_where_one_is_given() -> None:
    silence = Silence(1.0)
    silence.passed(0.75)
    silence.break_off()
    silence.passed(0.75)
    assert not silence.over
    silence.break_off(0.5)
    silence.passed(0.5)
    assert silence.over
    assert silence.slice_s() == 0
    assert silence.limit_s == 0.5


def test_a_load_has_the_time_of_its_file() -> None:
    limits = Limits(load_s=10, load_bytes_s=10e6)
    assert Patience(limits, 0, 0).load_s == 10
    assert Patience(limits, 5 * 10**9, 0).load_s == 510
    assert Patience(Limits(load_bytes_s=0), GIB, 0).load_s > GIB  # no rate is no limit, and no division by zero


def test_a_prompt_has_the_time_of_the_plan_and_never_less_than_the_floor() -> None:
    limits = Limits(first_token_s=100, prompt_token_s=0.1)
    assert Patience(limits, 0, 0).prompt_s(1000) == 200
    assert Patience(limits, 0, 0.002).prompt_s(1000) == 200  # planned: 2 s
    assert Patience(limits, 0, 0.05).prompt_s(1000) == 600  # planned: 50 s


def test_limits_are_changed_by_name() -> None:
    changed = Limits().changed({"token_s": 5, "breakdowns": 7.0})
    assert (changed.token_s, changed.breakdowns) == (5, 7)
    assert changed.load_s == Limits().load_s
    for wrong in ({"tokens_s": 5.0}, {"token_s": -1.0}, {"token_s": float("nan")}, {"token_s": float("inf")}):
        with pytest.raises(UsageError):
            Limits().changed(wrong)


def test_an_option_is_changed_by_its_name() -> None:
    assert list(Changes.__annotations__) == [f.name for f in fields(Options)]
    assert Options().changed({"context": 64, "sampling": None}) == Options(context=64)
    with pytest.raises(UsageError, match="unknown option 'contxt'; choose backend, "):
        Options().changed({"contxt": 64})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backend", "gpu"),
        ("domain", 16),
        ("context", -1),
        ("threads", -2),
        ("limits", {"token_s": 5}),
        ("sampling", {}),
    ],
)
def test_an_option_that_no_bundle_makes_right_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError):
        Options(**{name: value}).check()  # type: ignore[arg-type]
