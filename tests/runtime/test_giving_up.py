"""Who gives an answer up does not wait for the worker: not for a load, not for a slow token, not for one that stands
still. The next answer does, and is right."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import (
    FIRST,
    FOR_EVER_MS,
    SECOND,
    THIRD,
    Listener,
    Wanted,
    ask,
    begin,
    is_part,
    kill_idle,
    no_workers,
    wait_until_still,
)
from runtimekit import patient, wait_until

import rk_gemma_runtime as rk

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.board

Opened = Any  # the fixture `opened`
AT_ONCE_S = 1.0
STAYS = 1.2  # seconds for a token that nobody wants any more


def loading(before: set[int]) -> bool:
    """Whether a new worker of this process has mapped the NPU's library."""
    for child in psutil.Process().children():
        try:
            if child.pid not in before and any("librkllmrt" in m.path for m in child.memory_maps()):
                return True
        except psutil.Error:
            continue
    return False


def stop(how: str, gemma: Any, reply: Any) -> None:
    getattr(reply if how == "cancel" else gemma, how)()


@pytest.mark.parametrize("how", ["cancel", "abort", "close"])
def test_during_a_load(how: str, opened: Opened, profile: Any, wanted: Wanted) -> None:
    gemma = opened()
    before = {child.pid for child in psutil.Process().children()}
    pid = gemma.worker_pid
    kill_idle(pid)
    profile(init_delay_ms=FOR_EVER_MS)
    reply = begin(gemma, FIRST)
    listener = Listener(reply)
    wait_until(lambda: loading(before), "the model is being loaded again")
    start = time.monotonic()
    stop(how, gemma, reply)
    assert time.monotonic() - start < patient(3)
    assert listener.ended(3).error is None
    assert (reply.answer.finish_reason, reply.answer.ids) == ("abort", ())
    profile()
    if how == "close":
        assert no_workers()
    else:
        assert ask(gemma, SECOND) == wanted[SECOND]


@pytest.mark.parametrize("how", ["cancel", "abort", "close"])
def test_during_a_reload_inside_the_answer(
    how: str, opened: Opened, profile: Any, wanted: Wanted, caplog: pytest.LogCaptureFixture
) -> None:
    """1.1.0 takes sampling at init only."""
    caplog.set_level("DEBUG", logger="rk_gemma_runtime.library")
    profile()  # a worker reads the same file again
    # A load cannot be stopped, so the next answer waits for its end, as long as a load may be silent.
    limits = rk.Limits(load_s=patient(3), first_token_s=patient(3), abort_s=patient(1))
    gemma = opened(layout="1.1.0", sampling=rk.Sampling(0.0), limits=limits)

    def inits() -> int:
        return caplog.text.count("rk-gemma simulator")

    assert ask(gemma, FIRST) == wanted[FIRST]
    wait_until(lambda: inits() == 1, "its line has been read")
    profile(init_delay_ms=FOR_EVER_MS)
    reply = gemma.chat(FIRST, temperature=0.5)
    listener = Listener(reply)
    wait_until(lambda: inits() == 2, "the model is being loaded again")
    stop(how, gemma, reply)
    assert listener.ended(3).error is None
    assert (reply.answer.finish_reason, reply.answer.ids) == ("abort", ())
    profile()
    if how == "close":
        assert no_workers()
    else:
        assert ask(gemma, SECOND) == wanted[SECOND]


@pytest.mark.parametrize("how", ["close", "drop", "drop in a thread"])
def test_while_a_slow_token_is_on_its_way(how: str, opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=int(patient(STAYS) * 1e6))
    gemma = opened()
    replies = [begin(gemma, FIRST)]
    next(replies[0])
    took = [give_up(how, replies)]
    assert took[0] < patient(AT_ONCE_S)
    assert ask(gemma, SECOND, max_tokens=1) == wanted[SECOND][:1]


def give_up(how: str, replies: list[Iterator[str]]) -> float:
    """Seconds that it takes to close the only reply, or to lose it."""
    took = []

    def work() -> None:
        start = time.monotonic()
        reply = replies.pop()
        if how == "close":
            reply.close()  # type: ignore[attr-defined]
        del reply
        gc.collect()
        took.append(time.monotonic() - start)

    if how == "drop in a thread":
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    return took[0]


@pytest.mark.parametrize("how", ["close", "drop"])
@pytest.mark.parametrize("backend", ["npu", "cpu"])
def test_while_the_worker_stands_still(backend: str, how: str, opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=20_000)
    gemma = opened(backend)
    replies = [begin(gemma, FIRST)]
    next(replies[0])
    pid = gemma.worker_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert give_up(how, replies) < patient(AT_ONCE_S)
        assert is_part(gemma.last, wanted[FIRST])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ask(gemma, SECOND) == wanted[SECOND]
    assert gemma.worker_pid == pid


def test_a_worker_that_does_not_obey_costs_the_next_answer_its_start(
    opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(hang_at_token=3, token_delay_us=20_000)
    gemma = opened(limits=rk.Limits(abort_s=patient(1)))
    replies = [begin(gemma, FIRST)]
    next(replies[0])
    pid = gemma.worker_pid
    wait_until_still(pid)
    profile()
    assert give_up("close", replies) < patient(AT_ONCE_S)
    assert ask(gemma, SECOND) == wanted[SECOND]
    assert gemma.worker_pid != pid
    assert ask(gemma, THIRD) == wanted[THIRD]


@pytest.mark.parametrize("how", ["cancel", "abort", "close"])
def test_while_the_worker_hangs(how: str, opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(hang_at_token=3, token_delay_us=20_000)
    gemma = opened(limits=rk.Limits(abort_s=patient(1)))
    reply = begin(gemma, FIRST)
    listener = Listener(reply)
    assert listener.began.wait(patient(10))
    wait_until_still(gemma.worker_pid)
    stop(how, gemma, reply)
    assert listener.ended(3).error is None
    assert is_part(reply.answer, wanted[FIRST])
    profile()
    if how == "close":
        assert no_workers()
    else:
        assert ask(gemma, SECOND) == wanted[SECOND]
