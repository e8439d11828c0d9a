"""A worker lives as long as its parent and no longer, whatever is done to either."""

from __future__ import annotations

import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import FIRST, SECOND, SLOW, Wanted, ask, begin, no_workers
from lifekit import Program, descriptors, gone_within, result
from runtimekit import alive, scratch_left, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.board

Opened = Any  # the fixture `opened`
Start = Any  # the fixture `start`
POLITE = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
GONE_S = 1.0
BOTH = pytest.mark.parametrize("backend", ["npu", "cpu"])


def name_of(number: signal.Signals) -> str:
    return number.name


@BOTH
def test_it_has_a_session_of_its_own(backend: str, opened: Opened) -> None:
    pid = opened(backend).worker_pid
    assert (os.getsid(pid), os.getpgid(pid)) == (pid, pid)


@BOTH
@pytest.mark.parametrize("number", POLITE, ids=name_of)
def test_a_polite_signal_to_the_worker_ends_nothing(
    number: signal.Signals, backend: str, opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW // 2)
    gemma = opened(backend)
    pid = gemma.worker_pid
    os.kill(pid, number)
    reply = begin(gemma, FIRST)
    next(reply)
    os.kill(pid, number)
    list(reply)
    assert (gemma.last.ids, gemma.worker_pid) == (wanted[FIRST], pid)


@pytest.mark.parametrize("number", POLITE, ids=name_of)
def test_a_signal_to_the_group_of_a_parent(number: signal.Signals, start: Start, wanted: Wanted) -> None:
    """As Ctrl-C in a terminal, under a program that has a handler."""
    program = start(f"""
signal.signal({int(number)}, lambda *a: tell("signal"))
g = gemma()
tell(g.worker_pid)
ids = []
reply = begin(g)
next(reply)
tell("answering")
list(reply)
tell(list(g.last.ids), g.worker_pid)
""", token_delay_us=SLOW)  # fmt: skip
    (pid,) = program.line()
    assert program.line() == ["answering"]
    os.killpg(program.pid, number)
    assert program.line() == ["signal"]
    assert program.line() == [list(wanted[FIRST]), pid]


WAYS = {
    "idle": 'g = gemma(BACKEND)\ntell("ready")\nsignal.pause()',
    "answering": 'g = gemma(BACKEND)\nreply = begin(g)\nnext(reply)\ntell("ready")\nlist(reply)\nsignal.pause()',
    "loading": 'tell("ready")\ng = gemma(BACKEND)\nsignal.pause()',
}
FORK = 'if os.fork() == 0:\n    os.close(1)\n    signal.pause()\ntell("forked")\n'
SPAWN = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=signal.pause)
child.start()
tell("forked")
"""


@BOTH
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_parent_takes_it_along(way: str, backend: str, start: Start, scratch: Path) -> None:
    slow = {"init_delay_ms": 60_000} if way == "loading" else {"token_delay_us": 100_000}
    program = start(f"BACKEND = {backend!r}\n{WAYS[way]}", **slow)
    assert program.line() == ["ready"]
    worker = program.worker()
    program.kill()
    gone_within(worker, GONE_S)
    wait_until(lambda: scratch_left(scratch) == [], "no private directory is left", GONE_S)


@BOTH
@pytest.mark.parametrize("fork", [FORK, SPAWN], ids=["fork", "multiprocessing"])
@pytest.mark.parametrize("way", ["idle", "answering"])
def test_also_if_a_forked_child_lives_on(way: str, fork: str, backend: str, start: Start) -> None:
    """The child has the parent's descriptors, so no socket closes."""
    body = WAYS[way].replace('tell("ready")', fork)
    program = start(f"BACKEND = {backend!r}\n{body}", token_delay_us=100_000)
    assert program.line() == ["forked"]
    worker = program.worker()
    others = {p.pid for p in psutil.Process(program.pid).children()} - {worker}
    assert others
    program.seen |= others
    program.kill()
    gone_within(worker, GONE_S)
    assert all(map(alive, others))


DEEDS = {
    "ask": "told = [ask(g), g.worker_pid]",
    "go on": "told = error(lambda: list(reply))",
    "close": "g.close(); told = None",
    "close the reply": "reply.close(); told = None",
    "abort": "g.abort(); told = None",
    "forget": "told = error(g.forget)",
    "drop": "del reply, g; gc.collect(); told = None",
    "with": "g.__exit__(None, None, None); told = None",
}
LEAVE = {"_exit": "os._exit(0)", "exit": "sys.exit(0)"}


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("deed", DEEDS)
def test_a_forked_child_never_touches_the_parents_worker(deed: str, leave: str, start: Start, wanted: Wanted) -> None:
    told, before, after, code, mine = result(start, f"""
g = gemma()
reply = begin(g)
next(reply)
before = g.worker_pid
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    {DEEDS[deed]}
    os.write(write, json.dumps(told).encode())
    {LEAVE[leave]}
os.close(write)
code = os.waitpid(pid, 0)[1]
list(reply)
ids = list(g.last.ids)
told = json.loads(os.read(read, 9999))
assert ask(g) == ids
tell(told, before, g.worker_pid, code, ids)
""", token_delay_us=SLOW // 2)  # fmt: skip
    assert (code, mine, after) == (0, list(wanted[FIRST]), before)
    if deed == "go on":
        assert told[0] == "UsageError"
        assert "forked" in told[1]
    if deed == "ask":  # a worker of its own, which goes with it
        assert told[0] == list(wanted[FIRST])
        assert told[1] != before
        gone_within(told[1], GONE_S)


def test_a_child_of_multiprocessing_has_a_worker_of_its_own(start: Start, wanted: Wanted) -> None:
    heard, pid, after, ids = result(start, """
import multiprocessing
context = multiprocessing.get_context("fork")
g = gemma()
def work(queue):
    with gemma("cpu") as own:
        queue.put([ask(g), ask(own), g.worker_pid])
queue = context.SimpleQueue()
before = g.worker_pid
child = context.Process(target=work, args=(queue,))
child.start()
heard = queue.get()
child.join()
ids = ask(g)
tell(heard, before, g.worker_pid, ids)
""")  # fmt: skip
    ids_wanted = list(wanted[FIRST])
    assert (heard[:2], ids, after) == ([ids_wanted, ids_wanted], ids_wanted, pid)
    assert heard[2] != pid
    gone_within(heard[2], GONE_S)


@pytest.mark.parametrize("held", ["assistant", "reply", "half-way reply", "cycle"])
@BOTH
def test_one_that_is_dropped_leaves_no_worker(
    backend: str, held: str, twin_bundle: Path, simulator: Callable[[str], Path], profile: Any
) -> None:
    from rk_gemma_runtime import Assistant

    profile(token_delay_us=SLOW)
    gemma: Any = Assistant.open(twin_bundle, backend=backend, librkllmrt=str(simulator("1.3.0")), threads=1)
    pid = gemma.worker_pid
    reply = begin(gemma, FIRST) if "reply" in held else None
    if held == "half-way reply":
        next(reply)
    if held == "cycle":
        gemma.itself = [gemma]
    del gemma
    if reply is not None:
        gc.collect()
        assert alive(pid), "a reply holds what answers it"
        del reply
    gc.collect()
    gone_within(pid, 3)
    wait_until(no_workers, "it is reaped")


def test_a_program_that_does_not_close_ends_well(start: Start, wanted: Wanted, scratch: Path) -> None:
    program: Program = start("""
kept = [gemma("npu"), gemma("cpu")]
reply = begin(kept[0])
next(reply)
tell([g.worker_pid for g in kept], ask(kept[1]))
""", token_delay_us=SLOW)  # fmt: skip
    pids, ids = program.line()
    assert ids == list(wanted[FIRST])
    assert program.end(5) == (0, "")
    for pid in pids:
        gone_within(pid, GONE_S)
    assert scratch_left(scratch) == []


@BOTH
def test_nothing_is_left_of_many(backend: str, opened: Opened, wanted: Wanted, scratch: Path) -> None:
    def held() -> tuple[int, int, int]:
        return descriptors(), threading.active_count(), len(psutil.Process().children())

    opened(backend).close()
    before = held()
    for number in range(4):
        gemma = opened(backend)
        assert ask(gemma, SECOND) == wanted[SECOND]
        if number % 2:
            next(begin(gemma, FIRST))
        gemma.close()
    wait_until(lambda: held() == before, f"{before} descriptors, threads, children; {held()}", 5)
    assert scratch_left(scratch) == []
