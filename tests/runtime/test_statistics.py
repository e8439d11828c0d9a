"""What the library counts is believed only where it can be this run's."""

from __future__ import annotations

import pytest

from rk_gemma_runtime.engines.statistics import Statistics
from rk_gemma_runtime.librkllm.session import Perf

pytestmark = pytest.mark.board


def perf(prefill: int, generate: int) -> Perf:
    return Perf(prefill, 10.0 * prefill, generate, 20.0 * generate, 5.0)


def test_each_runs_own() -> None:
    statistics = Statistics()
    for prompt, new in ((20, 12), (3, 40), (500, 1), (1, 2)):
        assert statistics.read(perf(prompt, new), prompt, new, False) == perf(prompt, new)
        assert statistics.read(perf(prompt, new - 1), prompt, new, False) == perf(prompt, new - 1)


def test_summed_up_since_the_load() -> None:
    statistics, prefill, generate = Statistics(), 0, 0
    for prompt, new in ((2, 1), (20, 12), (3, 40), (500, 1), (7, 9)):
        prefill, generate = prefill + prompt, generate + new
        found = statistics.read(perf(prefill, generate), prompt, new, False)
        assert found is not None
        assert (found.prefill_tokens, found.generate_tokens) == (prompt, new)


@pytest.mark.parametrize("odd", [(0, 0), (0, 12), (22, 12), (20, 50), (-1, 12), (10**6, 10**6)])
def test_what_cannot_be(odd: tuple[int, int]) -> None:
    assert Statistics().read(perf(*odd), 20, 12, False) is None
    assert Statistics().read(None, 20, 12, False) is None


def test_a_bos_that_was_added_can_be() -> None:
    assert Statistics().read(perf(21, 12), 20, 12, False) == perf(21, 12)


def test_a_run_that_was_halted_may_have_made_more() -> None:
    assert Statistics().read(perf(20, 50), 20, 12, True) == perf(20, 50)
    assert Statistics().read(perf(20, 3), 20, 12, True) is None
