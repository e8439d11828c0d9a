"""Signals at any point leave no process, no socket and no private directory."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from runtimekit import descendants, gone, patient, scratch_left, wait_until, without_cuts

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.board

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
SIGNALS = list(CODES)
# Hot enough that the answer does not end by itself soon.
RAMBLING = ("--threads", "1", "--temperature", "5", "--top-k", "0", "--top-p", "1", "--max-tokens", "900")
LONG = ("--ids", "2,5,9", "--max-tokens", "100", "--temperature", "0")


class Running:
    """A command in flight, and every process below it that was ever seen."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.seen: set[int] = {child.pid}

    def workers(self) -> list[psutil.Process]:
        """The processes below it now."""
        found = descendants(self.child.pid)
        self.seen |= {p.pid for p in found}
        return found

    def end(self) -> tuple[int, str]:
        """Exit code and stderr, within a deadline."""
        _, err = self.child.communicate(timeout=patient(15))
        return self.child.returncode, err.decode()

    def clean(self, scratch: Path) -> None:
        """Fail unless nothing is left soon."""
        wait_until(lambda: gone(self.seen), f"processes {self.seen} have left", 10)
        wait_until(lambda: scratch_left(scratch) == [], f"{scratch} is empty", 5)


@pytest.fixture
def start(
    tiny_bundle: Path, board: Callable[..., dict[str, str]], spawn: Callable[..., subprocess.Popen[bytes]]
) -> Iterator[Callable[..., Running]]:
    """start(backend, question, key=value, ...): a long answer on such a board."""
    made: list[Running] = []

    def run(backend: str, question: tuple[object, ...] = (), **keys: object) -> Running:
        arguments = question or (tiny_bundle, *LONG)
        made.append(Running(spawn("run", *arguments, "--backend", backend, env=board(**keys))))
        return made[-1]

    yield run
    for running in made:
        running.workers()
        for pid in running.seen:
            with suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).ppid() in {running.child.pid, 1} or pid == running.child.pid:
                    psutil.Process(pid).kill()
        running.child.communicate()


@pytest.fixture
def answering(demo_bundle: Path, start: Callable[..., Running]) -> Callable[..., Running]:
    """As start, with text, and returns when some of the answer has been printed."""

    def run(backend: str, **keys: object) -> Running:
        running = start(backend, (demo_bundle, "Hi", *RAMBLING), **keys)
        assert running.child.stdout is not None
        ready, _, _ = select.select([running.child.stdout], [], [], patient(20))
        assert ready
        assert os.read(running.child.stdout.fileno(), 1)
        running.workers()
        return running

    return run


def has_worker(running: Running) -> bool:
    return any("rk_gemma_runtime.worker.__main__" in p.cmdline() for p in running.workers() if p.is_running())


def loading(running: Running) -> bool:
    """The worker has mapped the library (npu) or its private directory is there."""
    for process in running.workers():
        with suppress(psutil.Error):
            if any("librkllmrt" in m.path for m in process.memory_maps()):
                return True
    return False


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_the_parent_while_the_npu_loads(number: signal.Signals, start: Callable[..., Running], scratch: Path) -> None:
    running = start("npu", init_delay_ms=60_000)
    wait_until(lambda: loading(running), "the library is loading")
    running.child.send_signal(number)
    code, err = running.end()
    assert code == CODES[number]
    assert "Traceback" not in err
    running.clean(scratch)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_the_parent_as_soon_as_the_cpu_worker_has_a_directory(
    number: signal.Signals, start: Callable[..., Running], scratch: Path
) -> None:
    running = start("cpu")
    wait_until(lambda: scratch_left(scratch) != [], "the private directory is there")
    running.workers()
    running.child.send_signal(number)
    code, err = running.end()
    assert code == CODES[number]
    assert "Traceback" not in err
    running.clean(scratch)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_the_parent_as_soon_as_the_cpu_worker_is_there(
    number: signal.Signals, start: Callable[..., Running], scratch: Path
) -> None:
    running = start("cpu")
    wait_until(lambda: has_worker(running), "the worker is there")
    running.child.send_signal(number)
    code, err = running.end()
    assert code == CODES[number]
    assert "Traceback" not in err
    running.clean(scratch)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
@pytest.mark.parametrize("backend", ["npu", "cpu"])
def test_the_parent_while_it_answers(
    backend: str, number: signal.Signals, answering: Callable[..., Running], scratch: Path
) -> None:
    running = answering(backend, token_delay_us=100_000)
    running.child.send_signal(number)
    code, err = running.end()
    assert code == CODES[number]
    assert "Traceback" not in err
    running.clean(scratch)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL], ids=lambda s: s.name)
@pytest.mark.parametrize(("backend", "expected"), [("npu", 1), ("auto", 0), ("cpu", 1)])
def test_the_worker_while_it_answers(
    backend: str, expected: int, number: signal.Signals, answering: Callable[..., Running], scratch: Path
) -> None:
    for _ in range(5):  # such an answer may end by itself before the signal comes
        running = answering(backend, token_delay_us=100_000)
        for worker in running.workers():
            worker.send_signal(number)
        code, err = running.end()
        running.clean(scratch)
        if number.name in err:
            break
    assert code == expected, err
    assert len(without_cuts(err).splitlines()) == 1, err
    assert number.name in err


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL], ids=lambda s: s.name)
def test_the_cpu_worker_while_it_loads(number: signal.Signals, start: Callable[..., Running], scratch: Path) -> None:
    running = start("cpu")
    wait_until(lambda: has_worker(running), "the worker is there")
    running.workers()[0].send_signal(number)
    code, err = running.end()
    assert code == 1, err
    assert len(err.splitlines()) == 1, err
    running.clean(scratch)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_the_parent_of_a_library_that_hangs(
    number: signal.Signals, answering: Callable[..., Running], scratch: Path
) -> None:
    running = answering("npu", hang_at_token=6)
    running.child.send_signal(number)
    assert running.end()[0] == CODES[number]
    running.clean(scratch)
