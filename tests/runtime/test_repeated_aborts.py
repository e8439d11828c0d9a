"""How often a run is aborted: one abort too many may hit the next run."""

from __future__ import annotations

import pytest
from runtimekit import patient

from rk_gemma_runtime.engines.generation import Generation
from rk_gemma_runtime.jobs import Request


class Aborted:
    """A generation that was aborted after a token, and how often the library heard of it."""

    def __init__(self) -> None:
        self.halts = 0
        self.told: list[int] = []
        self.generation = Generation(Request((2, 5), 50, (1,)), self.told.append, 100, 100, self._halt, True)
        self.say = self.generation.listener()
        self.say(7, b"")
        self.generation.abort()
        self.wait()

    def wait(self) -> None:
        """Until the library has been told."""
        halting = self.generation._halting
        assert halting is not None
        halting.join(patient(10))
        assert not halting.is_alive()

    def _halt(self) -> None:
        self.halts += 1


@pytest.mark.parametrize(("tokens", "halts"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3)])
def test_a_second_token_after_an_abort_asks_for_another(tokens: int, halts: int) -> None:
    aborted = Aborted()
    for _ in range(tokens):
        aborted.say(8, b"")
        aborted.wait()
    assert aborted.halts == halts
    assert aborted.told == [7]
