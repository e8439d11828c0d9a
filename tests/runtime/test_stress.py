"""Everything at once: many tasks and threads ask, cancel, run out of time, fork and kill the worker. Every answer is
the greedy one, or the beginning of it where it was ended on purpose; nothing is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import FIRST, QUESTIONS, Wanted, ask, begin, is_part
from runtimekit import patient, scratch_left, wait_until

from rk_gemma_runtime import Assistant, AsyncAssistant, Limits, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.board

TASKS, THREADS = 20, 8
SPANS = pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(300)]),
        pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
# What is killed is started again soon, and breakdowns are forgotten before there are three.
LIMITS = Limits(retry_s=0.5, retry_most_s=1, breakdown_s=1)
ENDS = ("whole", "whole", "whole", "cancel", "time-out", "leave")


class Tally:
    """Checks each answer by how it was asked, and counts."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def note(self, question: str, end: str, reply: Any) -> None:
        """An answer that is over. Only one that was to be whole must be."""
        answer, whole = reply.answer, self._wanted[question]
        if answer is None and end != "whole":  # given up before its turn
            self.counts[f"{end}, none"] += 1
        elif answer is not None and (answer.finish_reason, answer.ids) == ("stop", whole):
            self.counts[f"{end}, {answer.backend}"] += 1
        elif end != "whole" and is_part(answer, whole):
            self.counts[f"{end}, part"] += 1
        else:
            self.wrong.append(f"{question} {end} {answer}")

    def failed(self, question: str, end: str, error: BaseException) -> None:
        """An answer that was not given."""
        self.wrong.append(f"{question} {end} {error!r}")


class Killer(threading.Thread):
    """SIGKILL for the NPU's worker, and a forked child that touches what it has inherited, now and then."""

    def __init__(self, gemma: Any, choice: random.Random) -> None:
        super().__init__(daemon=True)
        self._gemma, self._choice = gemma, choice
        self._off = threading.Event()
        self.deeds: Counter[str] = Counter()

    def run(self) -> None:
        while not self._off.wait(self._choice.uniform(0.2, 0.8)):
            if self._choice.random() < 0.4:
                self.deeds["fork" if fork_and_leave(self._gemma) else "stuck child"] += 1
            elif (pid := self._npu_worker()) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.deeds["kill"] += 1

    def _npu_worker(self) -> int | None:
        """Nobody goes on where the CPU's is killed: that answer is lost."""
        before, pid, after = self._gemma.backend, self._gemma.worker_pid, self._gemma.backend
        return pid if before == after == "npu" else None

    def stop(self) -> None:
        """No kill and no fork any more."""
        self._off.set()
        self.join(patient(30))
        assert not self.is_alive()


def fork_and_leave(gemma: Any) -> bool:
    """Whether the child, which touches what it has inherited, comes to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            gemma.abort()
            gemma.forget()
            del gemma
        finally:
            os._exit(0)
    deadline = time.monotonic() + patient(10)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.01)
    return True


def held() -> tuple[int, int, int]:
    """Descriptors, threads and children of this process."""
    gc.collect()
    me = psutil.Process()
    return me.num_fds(), threading.active_count(), len(me.children())


@pytest.fixture
def options(
    simulator: Callable[[str], Path], profile: Any, twin_bundle: Path, wanted: Wanted, scratch: Path
) -> Iterator[dict[str, Any]]:
    """What both are opened with; afterwards nothing is left of them."""
    profile(token_delay_us=1000)
    given = {"backend": "auto", "librkllmrt": str(simulator("1.3.0")), "threads": 1, "limits": LIMITS}
    with Assistant.open(twin_bundle, **given) as gemma:  # imports and caches come first
        assert ask(gemma, FIRST) == wanted[FIRST]
    before, files = held(), {p.name for p in scratch.iterdir()}
    yield given
    wait_until(lambda: held() == before, f"{before} descriptors, threads, children; {held()}", 10)
    assert scratch_left(scratch) == []
    assert {p.name for p in scratch.iterdir()} == files


def judge(tally: Tally, killer: Killer) -> None:
    """Everything was right, and everything was tried."""
    print(dict(tally.counts), dict(killer.deeds))
    assert tally.wrong == [], "\n".join(tally.wrong)
    assert set(killer.deeds) == {"fork", "kill"}
    for sort in ("whole, npu", "whole, cpu", "cancel, part", "time-out, part", "leave, part"):
        assert tally.counts[sort] > 0, tally.counts


@SPANS
def test_threads_on_one_assistant(seconds: int, options: dict[str, Any], twin_bundle: Path, wanted: Wanted) -> None:
    tally, closing = Tally(wanted), threading.Event()
    with Assistant.open(twin_bundle, **options) as gemma:
        killer = Killer(gemma, random.Random(seconds))
        threads = [
            threading.Thread(target=work_in_thread, args=(gemma, random.Random(n), tally, closing), daemon=True)
            for n in range(THREADS)
        ]
        for thread in (killer, *threads):
            thread.start()
        closing.wait(seconds)
        killer.stop()
        closing.set()
        gemma.close()  # in an answer, with others waiting
        for thread in threads:
            thread.join(patient(20))
        assert not any(thread.is_alive() for thread in threads)
    judge(tally, killer)


def work_in_thread(gemma: Assistant, choice: random.Random, tally: Tally, closing: threading.Event) -> None:
    while not closing.is_set():
        question, end = choice.choice(QUESTIONS), choice.choice(ENDS)
        try:
            reply = begin(gemma, question, wait=True)
            one_in_thread(reply, end, choice)
        except Exception as error:
            if not (isinstance(error, UsageError) and closing.is_set()):
                tally.failed(question, end, error)
        else:
            tally.note(question, "closing" if closing.is_set() else end, reply)


def one_in_thread(reply: Any, end: str, choice: random.Random) -> None:
    """Iterate; end it from another thread, or leave it."""
    timer = None
    if end in ("cancel", "time-out"):
        timer = threading.Timer(choice.uniform(0, 0.6), reply.cancel)
        timer.start()
    most = choice.randrange(1, 12)
    try:
        for count, _ in enumerate(reply):
            if end == "leave" and count == most:
                break
        reply.close()
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()


@SPANS
def test_tasks_on_one_async_assistant(
    seconds: int, options: dict[str, Any], twin_bundle: Path, wanted: Wanted
) -> None:
    tally = Tally(wanted)
    killer = asyncio.run(work_in_loop(seconds, options, twin_bundle, tally))
    judge(tally, killer)


async def work_in_loop(seconds: int, options: dict[str, Any], bundle: Path, tally: Tally) -> Killer:
    closing = asyncio.Event()
    async with AsyncAssistant.open(str(bundle), **options) as gemma:
        killer = Killer(gemma, random.Random(seconds))
        killer.start()
        tasks = [asyncio.create_task(work_in_task(gemma, random.Random(n), tally, closing)) for n in range(TASKS)]
        await asyncio.sleep(seconds)
        await asyncio.get_running_loop().run_in_executor(None, killer.stop)
        closing.set()
        await asyncio.wait_for(gemma.close(), patient(10))
        _, late = await asyncio.wait(tasks, timeout=patient(20))
        assert not late
    return killer


async def work_in_task(gemma: Any, choice: random.Random, tally: Tally, closing: asyncio.Event) -> None:
    while not closing.is_set():
        question, end = choice.choice(QUESTIONS), choice.choice(ENDS)
        try:
            reply = begin(gemma, question)
            await one_in_task(reply, end, choice)
        except Exception as error:
            if not (isinstance(error, UsageError) and closing.is_set()):
                tally.failed(question, end, error)
        else:
            tally.note(question, "closing" if closing.is_set() else end, reply)


async def one_in_task(reply: Any, end: str, choice: random.Random) -> None:
    """Iterate; end it by a time-out, by a cancel, or leave it."""
    most = choice.randrange(1, 12)

    async def collect() -> None:
        count = 0
        async for _ in reply:
            count += 1
            if end == "leave" and count == most:
                break

    soon = 1.5
    if choice.random() < 0.5:  # in the answer; else most are still waiting
        await anext(reply, "")
        soon = 0.03
    if end == "time-out":
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(collect(), choice.uniform(0, soon))
    elif end == "cancel":
        handle = asyncio.get_running_loop().call_later(choice.uniform(0, soon), reply.cancel)
        await collect()
        handle.cancel()
    else:
        await collect()
    await reply.aclose()
