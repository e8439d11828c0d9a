"""One answer at a time: who waits, in which order, who is refused, and what closing does to all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from answerkit import (
    FIRST,
    QUESTIONS,
    SECOND,
    SLOW,
    THIRD,
    Listener,
    Wanted,
    ask,
    begin,
    begin_in_thread,
    ids_of,
    in_a_thread,
    is_part,
    no_workers,
)
from runtimekit import patient

from rk_gemma_runtime.errors import UsageError

pytestmark = pytest.mark.board

Opened = Any  # the fixture `opened`


def test_preferring_half_way_is_refused_and_nothing_is_lost(opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened("auto")
    reply = begin(gemma, FIRST)
    next(reply)
    for call in (lambda: gemma.prefer("cpu"), lambda: in_a_thread(lambda: gemma.prefer("cpu"))):
        with pytest.raises(UsageError):
            call()
    list(reply)
    assert (reply.answer.backend, reply.answer.ids) == ("npu", wanted[FIRST])
    gemma.prefer("cpu")
    assert (ask(gemma, SECOND), gemma.last.backend) == (wanted[SECOND], "cpu")


@pytest.mark.parametrize("backend", ["npu", "cpu"])
@pytest.mark.parametrize("where", ["same thread", "other thread", "thread of the answer"])
def test_closing_half_way_ends_the_answer(
    where: str, backend: str, opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened(backend)
    if where == "thread of the answer":
        reply, listener = begin_in_thread(gemma, FIRST)
        gemma.close()
        assert listener.ended(3).error is None
    else:
        reply = begin(gemma, FIRST)
        next(reply)
        gemma.close() if where == "same thread" else in_a_thread(gemma.close)
        list(reply)
    assert is_part(reply.answer, wanted[FIRST]) or (backend == "cpu" and reply.answer.ids == wanted[FIRST])
    gemma.close()
    assert no_workers()
    gemma.abort()
    gemma.forget()
    for call in (lambda: next(begin(gemma, FIRST)), lambda: gemma.logits([2, 5]), lambda: gemma.prefer("cpu")):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_closing_ends_those_that_wait(opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    reply, listener = begin_in_thread(gemma, FIRST)
    waiting = Listener(begin(gemma, SECOND, wait=True))
    waiting.wait_until_blocked()
    gemma.close()
    assert listener.ended(3).error is None
    assert is_part(reply.answer, wanted[FIRST])
    assert isinstance(waiting.ended(3).error, UsageError)
    assert "closed" in str(waiting.error)


def test_threads_that_wait_are_answered_in_their_order(opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW // 4)
    gemma = opened()
    _, listener = begin_in_thread(gemma, FIRST, wait=True)
    order: list[int] = []
    replies = [begin(gemma, QUESTIONS[n % 3], wait=True) for n in range(5)]
    threads = []
    for n in (3, 1, 4, 0, 2):  # of the first `next`, not of the call
        threads.append(Listener(replies[n], lambda n=n: order.append(n)))  # type: ignore[misc]
        threads[-1].wait_until_blocked()
    for thread in (listener, *threads):
        assert thread.ended(20).error is None
    assert order == [3, 1, 4, 0, 2]
    assert [ids_of(r.answer) for r in replies] == [wanted[QUESTIONS[n % 3]] for n in range(5)]


def test_one_that_waits_may_be_cancelled(opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    reply, listener = begin_in_thread(gemma, FIRST)
    other = begin(gemma, SECOND, wait=True)
    waiting = Listener(other)
    waiting.wait_until_blocked()
    other.cancel()
    assert waiting.ended(2).error is None
    assert (other.answer.finish_reason, other.answer.ids) == ("abort", ())
    assert listener.ended().error is None
    assert reply.answer.ids == wanted[FIRST]


@pytest.mark.parametrize("other_thread", [False, True])
def test_a_second_answer_is_refused_and_the_first_is_whole(
    other_thread: bool, opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    early = begin(gemma, SECOND)
    reply = begin(gemma, FIRST)
    next(reply)
    for call in (lambda: begin(gemma, THIRD), lambda: next(early), lambda: gemma.logits([2, 5])):
        with pytest.raises(UsageError, match="in progress"):
            in_a_thread(call) if other_thread else call()
    early.close()
    list(reply)
    assert (reply.answer.finish_reason, reply.answer.ids) == ("stop", wanted[FIRST])


def test_a_thread_that_would_wait_for_itself_is_told(opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    early = begin(gemma, SECOND, wait=True)
    reply = begin(gemma, FIRST)
    next(reply)
    for call in (lambda: next(early), lambda: gemma.logits([2, 5], wait=True)):
        with pytest.raises(UsageError):
            call()
    list(reply)
    assert reply.answer.ids == wanted[FIRST]
    assert ask(gemma, THIRD) == wanted[THIRD]


def test_one_that_shall_wait_may_be_made_half_way(opened: Opened, profile: Any, wanted: Wanted) -> None:
    """It waits in its first `next`, which may be later, or in another thread."""
    profile(token_delay_us=SLOW)
    gemma = opened()
    reply = begin(gemma, FIRST)
    next(reply)
    other = begin(gemma, SECOND, wait=True)
    listener = Listener(other)
    list(reply)
    assert reply.answer.ids == wanted[FIRST]
    assert listener.ended().error is None
    assert other.answer.ids == wanted[SECOND]


def test_replies_wander_through_the_threads_of_a_pool(opened: Opened, profile: Any, wanted: Wanted) -> None:
    """As a web framework does with iterators: the thread that begins one is free again after its first piece."""
    profile(token_delay_us=SLOW)
    gemma = opened()
    first, second = begin(gemma, FIRST, wait=True), begin(gemma, SECOND, wait=True)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        one.submit(next, first).result(patient(10))
        waiting = one.submit(list, second)
        other.submit(list, first).result(patient(10))
        waiting.result(patient(10))
    assert (first.answer.ids, second.answer.ids) == (wanted[FIRST], wanted[SECOND])
