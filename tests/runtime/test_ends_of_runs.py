"""Which events end a run. The receiver's function is called as a library calls it."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

import pytest

from rk_gemma_runtime.librkllm.abi import LAYOUTS as TABLES
from rk_gemma_runtime.librkllm.ends import LATE_TOKENS
from rk_gemma_runtime.librkllm.receiver import Prototype, Receiver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAYOUTS = ("1.1.0", "1.2.1", "1.3.0")
NORMAL, FINISH, ERROR = 0, 2, 3
NULL = -7  # a token without a result
END, BREAK = -2, -3


class Told:
    """A receiver, and what it heard in the run that was begun last. `numbered`: each event bears its run's number,
    and not NULL."""

    def __init__(self, layout: str, numbered: bool = True) -> None:
        made = TABLES[layout]
        self.receiver = Receiver(made)
        self.heard: list[int] = []
        self._numbered = numbered
        self._result = made.structs["RKLLMResult"]()
        self._call = ctypes.cast(self.receiver.function, Prototype)

    def run(self, events: Iterable[int]) -> tuple[int, ...]:
        """A whole run; the tokens that were heard."""
        self.heard.clear()
        self.number = self.receiver.expect(on_token=lambda token, text: self.heard.append(token))
        self.say(events)
        self.receiver.forget()
        return tuple(self.heard)

    def say(self, events: Iterable[int]) -> None:
        result = type(self._result)()
        for event in events:
            state = {END: FINISH, BREAK: ERROR}.get(event, NORMAL)
            result.token_id = event
            address = None if event == NULL else ctypes.addressof(result)
            assert self._call(address, self.number if self._numbered else None, state) == 0


MANY = tuple(range(10, 10 + 2 * LATE_TOKENS))
CASES = {
    "plain": ((5, 6, END), (5, 6)),
    "a token behind the end": ((5, 6, END, 9), (5, 6)),
    "two ends": ((5, 6, END, END), (5, 6)),
    "two ends and a token": ((5, 6, END, END, 9), (5, 6)),
    "an error and then an end": ((5, BREAK, END, 9), (5,)),
    "the end of another run before it": ((END, 5, 6, END), (5, 6)),
    "the end of another run within it": ((5, END, 6, 7, END), (5, 6, 7)),
    "the error of another run within it": ((5, BREAK, 6, 7, END), (5, 6, 7)),
    "another's end, and none of its own": ((5, END, *MANY), (5, *MANY)),
    "no results": ((NULL, 5, NULL, 6, NULL, END), (5, 6)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_tokens_up_to_the_end(case: str, layout: str) -> None:
    told, (events, wanted) = Told(layout), CASES[case]
    assert told.run(events) == wanted
    assert told.receiver.raised is None


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("place", range(4))
def test_a_library_whose_every_end_is_late(place: int, numbered: bool) -> None:
    told = Told("1.3.0", numbered)
    told.run((5, 6))
    for _ in range(5):  # the end of the run before comes before, between or behind this one's tokens
        assert told.run((*(5, 6, 7)[:place], END, *(5, 6, 7)[place:])) == (5, 6, 7)


@pytest.mark.parametrize("numbered", [True, False])
def test_ends_between_runs_are_not_awaited_any_more(numbered: bool) -> None:
    told = Told("1.3.0", numbered)
    for _ in range(3):
        assert told.run((5, 6)) == (5, 6)
        told.say((END,))
    assert told.run((5, 6, END, 9)) == (5, 6)


def test_ends_from_other_threads_change_no_order() -> None:
    told, tokens = Told("1.3.0", numbered=False), tuple(range(5, 45))
    told.run((5, 6))

    def events() -> Iterator[int]:
        ends = [threading.Thread(target=told.say, args=((END,) * 9,)) for _ in range(2)]
        for thread in ends:
            thread.start()
        yield from tokens
        for thread in ends:
            thread.join()
        yield END

    for _ in range(20):
        assert told.run(events()) == tokens


def test_a_run_that_was_refused_owes_no_end() -> None:
    told = Told("1.3.0")
    told.receiver.expect()
    told.receiver.refused()
    told.receiver.forget()
    assert told.run((5, 6, END, 9)) == (5, 6)


@pytest.mark.parametrize(
    ("events", "ended", "failed"),
    [
        ((5, END), True, False),
        ((5, END, BREAK), True, False),
        ((5, BREAK), True, True),
        ((5, BREAK, END), True, True),
        ((5, BREAK, 6, END), True, False),
        ((5, BREAK, *MANY), False, False),
        ((5,), False, False),
    ],
)
def test_the_end_that_counts(events: tuple[int, ...], ended: bool, failed: bool) -> None:
    told = Told("1.3.0")
    told.run(events)
    assert (told.receiver.ended.is_set(), told.receiver.failed) == (ended, failed)
