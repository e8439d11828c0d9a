"""Many tasks, one AsyncAssistant: answers come in order and whole, a cancelled one disturbs nobody, the loop never
blocks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import (
    FIRST,
    FOR_EVER_MS,
    QUESTIONS,
    SECOND,
    SLOW,
    THIRD,
    Wanted,
    begin,
    ids_of,
    is_part,
    kill_children,
    no_workers,
)
from runtimekit import patient, wait_until

import rk_gemma_runtime as rk
from rk_gemma_runtime import AsyncAssistant
from rk_gemma_runtime.chat import Message
from rk_gemma_runtime.errors import PromptError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path

pytestmark = pytest.mark.board

Opening = Any  # the fixture `opening`
BLOCKED_S = 1.0  # a machine that is busy itself keeps a loop for half a second


def run(work: Callable[[], Coroutine[Any, Any, None]], seconds: float = 40) -> None:
    asyncio.run(asyncio.wait_for(work(), patient(seconds)))


@pytest.fixture
def opening(twin_bundle: Path, simulator: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """opening(backend, option=value ...): what is awaited or entered. Nothing of it may be left after the test."""

    def make(backend: Any = "npu", **rest: Any) -> Any:
        options = {"backend": backend, "librkllmrt": str(simulator("1.3.0")), "threads": 1, **rest}
        return AsyncAssistant.open(str(twin_bundle), **options)

    yield make
    try:
        wait_until(no_workers, "no worker is left")
    finally:
        kill_children()


async def until(true: Callable[[], bool], what: str, seconds: float = 15) -> None:
    """As runtimekit.wait_until, while the loop goes on."""
    end = asyncio.get_running_loop().time() + patient(seconds)
    while not true():
        assert asyncio.get_running_loop().time() < end, f"still not: {what}"
        await asyncio.sleep(0.005)


async def some_turns() -> None:
    """Let every task that is ready do what it can do at once."""
    for _ in range(10):
        await asyncio.sleep(0)


async def collect(reply: Any) -> str:
    return "".join([piece async for piece in reply])


async def ask(gemma: Any, question: str, **options: Any) -> tuple[int, ...]:
    reply = begin(gemma, question, **options)
    text = await collect(reply)
    assert text == reply.answer.text
    return ids_of(reply.answer)


@asynccontextmanager
async def free_loop() -> AsyncIterator[None]:
    """Fail if the loop was blocked meanwhile."""
    gaps = [0.0]

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            gaps.append(loop.time() - before)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0)
    yield
    await asyncio.sleep(0.02)
    heart.cancel()
    assert max(gaps) < patient(BLOCKED_S)


@pytest.mark.parametrize("backend", ["npu", "cpu"])
def test_two_at_once_are_both_whole(backend: str, opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW // 4)

    async def work() -> None:
        async with opening(backend) as gemma:
            both = await asyncio.gather(ask(gemma, FIRST), ask(gemma, SECOND))
            assert both == [wanted[FIRST], wanted[SECOND]]

    run(work)


def test_tasks_are_answered_in_their_order(opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW // 8)
    order: list[int] = []

    async def work() -> None:
        async with opening() as gemma:

            async def one(number: int) -> None:
                assert await ask(gemma, QUESTIONS[number % 3]) == wanted[QUESTIONS[number % 3]]
                order.append(number)

            await asyncio.gather(*(one(number) for number in range(5)))

    run(work)
    assert order == [0, 1, 2, 3, 4]


def test_one_that_does_not_wait_is_refused_and_the_first_is_whole(
    opening: Opening, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        async with opening() as gemma:
            early = begin(gemma, SECOND, wait=False)
            first = begin(gemma, FIRST)
            await anext(first)
            with pytest.raises(UsageError, match="in progress"):
                await anext(early)
            with pytest.raises(UsageError, match="in progress"):
                begin(gemma, SECOND, wait=False)
            await early.aclose()
            await collect(first)
            assert (first.answer.finish_reason, first.answer.ids) == ("stop", wanted[FIRST])

    run(work, 10)


def test_what_cannot_be_asked_is_refused_at_the_call(opening: Opening, wanted: Wanted) -> None:
    async def work() -> None:
        async with opening() as gemma:
            for call in (lambda: gemma.chat(" "), lambda: gemma.generate([]), lambda: gemma.generate([1 << 20])):
                with pytest.raises(PromptError):
                    call()
            for call in (lambda: gemma.chat("Hi", max_tokens=0), lambda: gemma.chat(5)):
                with pytest.raises(UsageError):
                    call()
            assert await ask(gemma, FIRST) == wanted[FIRST]

    run(work)


@pytest.mark.parametrize("how", ["task", "wait_for", "cancel", "aclose", "abort", "break"])
def test_one_that_is_given_up_and_a_question_at_once(
    how: str, opening: Opening, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        async with opening() as gemma:
            reply = begin(gemma, FIRST)
            await give_up(how, gemma, reply)
            assert await ask(gemma, SECOND) == wanted[SECOND]
            assert is_part(reply.answer, wanted[FIRST])
            pid = gemma.worker_pid
            assert await ask(gemma, FIRST) == wanted[FIRST]
            assert gemma.worker_pid == pid

    run(work)


async def give_up(how: str, gemma: Any, reply: Any) -> None:
    """End an answer half-way, in one of the ways there are."""
    if how == "wait_for":
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(collect(reply), patient(0.15))
        return
    await anext(reply)
    if how == "task":
        task = asyncio.create_task(collect(reply))
        await some_turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif how == "break":
        async for _ in reply:
            break
        await reply.aclose()
    elif how == "aclose":
        await reply.aclose()
    else:
        (reply.cancel if how == "cancel" else gemma.abort)()
        await collect(reply)


def test_a_task_that_would_wait_for_itself_is_told(opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        async with opening() as gemma:
            first, second = begin(gemma, FIRST), begin(gemma, SECOND)
            await anext(first)
            with pytest.raises(UsageError):
                await anext(second)
            await collect(first)
            assert first.answer.ids == wanted[FIRST]

    run(work, 10)


@pytest.mark.parametrize("how", ["task", "cancel", "never begun"])
def test_one_that_waits_is_given_up(how: str, opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        async with opening() as gemma:
            first, second = begin(gemma, FIRST), begin(gemma, SECOND)
            await anext(first)
            if how != "never begun":
                task = asyncio.create_task(collect(second))
                await some_turns()
                (task if how == "task" else second).cancel()
                done, _ = await asyncio.wait([task], timeout=patient(2))
                assert done == {task}
                assert task.cancelled() == (how == "task")
            await second.aclose()
            third = asyncio.create_task(ask(gemma, THIRD))
            await collect(first)
            assert (first.answer.finish_reason, first.answer.ids) == ("stop", wanted[FIRST])
            assert await third == wanted[THIRD]

    run(work)


def test_closing_ends_the_answer_and_those_that_wait(opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        gemma = await opening()
        first = begin(gemma, FIRST)
        await anext(first)
        rest = asyncio.create_task(collect(first))
        waiting = [asyncio.create_task(ask(gemma, SECOND)) for _ in range(3)]
        rows = asyncio.create_task(gemma.logits([2, 5]))
        await some_turns()
        async with free_loop():
            await asyncio.wait_for(gemma.close(), patient(3))
        await asyncio.wait_for(rest, patient(1))
        assert is_part(first.answer, wanted[FIRST])
        for task in (*waiting, rows):
            with pytest.raises(UsageError, match="closed"):
                await asyncio.wait_for(task, patient(1))
        await gemma.close()
        with pytest.raises(UsageError, match="closed"):
            await collect(begin(gemma, FIRST))

    run(work)


@pytest.mark.parametrize("moment", ["at once", "worker", "loading"])
def test_a_cancelled_opening_leaves_no_worker(moment: str, opening: Opening, profile: Any) -> None:
    profile(init_delay_ms=FOR_EVER_MS)

    def there() -> bool:
        found = psutil.Process().children()
        return bool(found) and (moment == "worker" or any("librkllmrt" in m.path for m in found[0].memory_maps()))

    async def work() -> None:
        async def enter() -> None:
            async with opening():
                raise AssertionError("it loads")

        task = asyncio.create_task(enter())
        await asyncio.sleep(0)
        if moment != "at once":
            await until(there, "the worker is there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(no_workers, "the worker is gone", 3)

    run(work)


def test_it_has_what_the_assistant_has(opening: Opening, wanted: Wanted) -> None:
    async def work() -> None:
        async with opening("auto") as gemma:
            missing = [n for n in dir(rk.Assistant) if not n.startswith("_") and not hasattr(gemma, n)]
            assert missing == []
            assert (gemma.backend, gemma.degraded, gemma.last) == ("npu", None, None)
            assert (gemma.context > 0, gemma.worker_pid > 0, gemma.just_forgot) == (True, True, False)
            await collect(gemma.chat(FIRST, temperature=0))
            assert gemma.history[-1] == Message("assistant", gemma.last.text, wanted[FIRST])
            gemma.history = gemma.history[:0]
            assert await ask(gemma, FIRST) == wanted[FIRST]
            assert gemma.last.cached_tokens > 0
            gemma.forget()
            assert await ask(gemma, FIRST) == wanted[FIRST]
            assert gemma.last.cached_tokens == 0
            await gemma.reset("Be brief.")
            assert gemma.history == [Message("system", "Be brief.")]
            await gemma.prefer("cpu")
            assert (gemma.backend, await ask(gemma, SECOND)) == ("cpu", wanted[SECOND])

    run(work)


def test_coroutines_wait_their_turn(opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)

    async def work() -> None:
        async with opening() as gemma:
            first = begin(gemma, FIRST)
            await anext(first)
            calls = (gemma.logits([2, 5]), gemma.reset("Be brief."), gemma.prefer("cpu"))
            tasks = [asyncio.create_task(call) for call in calls]
            await some_turns()
            assert not any(task.done() for task in tasks)
            await collect(first)
            assert (first.answer.backend, first.answer.ids) == ("npu", wanted[FIRST])
            assert len((await asyncio.gather(*tasks))[0]) == 2
            assert gemma.backend == "cpu"

    run(work)


@pytest.mark.parametrize("name", ["on_event", "on_notice"])
def test_events_come_in_the_thread_of_the_loop(name: str, opening: Opening, profile: Any, wanted: Wanted) -> None:
    profile(crash_at_token=3)
    heard: list[tuple[int, object]] = []

    async def work() -> None:
        given = {name: lambda event: heard.append((threading.get_ident(), event))}
        async with opening("auto", **given) as gemma:
            assert await ask(gemma, FIRST) == wanted[FIRST]
            await until(lambda: any(isinstance(e, rk.Degraded) for _, e in heard), "it is told")
            assert next(e for _, e in heard if isinstance(e, rk.Degraded)) == gemma.last.degraded

    run(work)
    assert {thread for thread, _ in heard} == {threading.get_ident()}


@pytest.mark.parametrize("how", ["aclose", "cancel", "drop", "forget", "abort"])
def test_the_loop_goes_on_while_an_answer_is_given_up(
    how: str, opening: Opening, profile: Any, wanted: Wanted
) -> None:
    """The worker stands still: whoever waits for it would wait for ever."""
    profile(token_delay_us=SLOW)

    async def work() -> None:
        async with opening() as gemma:
            replies = [begin(gemma, FIRST)]
            await anext(replies[0])
            pid = gemma.worker_pid
            os.kill(pid, signal.SIGSTOP)
            try:
                async with free_loop():
                    await asyncio.wait_for(leave(how, gemma, replies), patient(1))
            finally:
                os.kill(pid, signal.SIGCONT)
            assert await ask(gemma, SECOND) == wanted[SECOND]

    run(work)


async def leave(how: str, gemma: Any, replies: list[Any]) -> None:
    reply = replies.pop()
    if how in ("aclose", "cancel"):
        done = getattr(reply, how)()
        if how == "aclose":
            await done
    elif how in ("forget", "abort"):
        getattr(gemma, how)()
    del reply
    gc.collect()
