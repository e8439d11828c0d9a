"""How far a long wait is: estimated where nobody tells, and shown on a terminal only."""

from __future__ import annotations

import io
import sys

import pytest

from rk_gemma_runtime.cli import progress as line
from rk_gemma_runtime.events import Progress
from rk_gemma_runtime.supervisor.estimate import Estimate


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(line.time, "monotonic", lambda: now[0])
    return now


def show(screen: Screen, clock: list[float], monkeypatch: pytest.MonkeyPatch, *steps: Progress) -> str:
    monkeypatch.setattr(sys, "stderr", screen)
    shown = line.ProgressLine()
    for step in steps:
        shown.show(step)
        clock[0] += 0.6
    return screen.getvalue()


def test_a_long_wait_is_shown_in_place_and_taken_away(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [Progress("prompt", done, 400) for done in (0, 100, 200, 300, 400)]
    said = show(Screen(True), clock, monkeypatch, *steps)
    assert said.split(line.CLEAR) == [
        "", "rk-gemma: reading the prompt: 50 %", "rk-gemma: reading the prompt: 75 %", ""
    ]  # fmt: skip


def test_a_short_wait_and_one_without_a_terminal_say_nothing(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert show(Screen(True), clock, monkeypatch, Progress("load", 0, 9), Progress("load", 9, 9)) == ""
    steps = [Progress("load", done, 4, estimated=True) for done in range(5)]
    assert show(Screen(False), clock, monkeypatch, *steps) == ""
    assert "loading the model: about 50 %" in show(Screen(True), clock, monkeypatch, *steps)


def test_the_npu_is_estimated_by_the_plan_and_never_done_before_it_says_so() -> None:
    told: list[Progress] = []
    estimate = Estimate(1000, 0.01, told.append)
    for _ in range(30):
        estimate.wait(0.5)
    assert [p.done for p in told[:3]] == [50, 100, 150]
    assert told[-1] == Progress("prompt", 999, 1000, estimated=True)
    estimate.end()
    count = len(told)
    estimate.wait(0.5)
    assert len(told) == count


@pytest.mark.parametrize(("tokens", "token_s"), [(1000, 0.0), (50, 0.01)])
def test_without_a_plan_or_for_a_short_prompt_nothing_is_estimated(tokens: int, token_s: float) -> None:
    told: list[Progress] = []
    Estimate(tokens, token_s, told.append).wait(5)
    assert told == []
