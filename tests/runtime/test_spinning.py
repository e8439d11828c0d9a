"""How llama.cpp's threads wait follows the load; a person's own wish is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from runtimekit import wait_until

from rk_gemma_runtime.engines import spinning

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow  # seconds, for what rarely changes


class Idle:
    """Takes the place of libgomp's threads."""

    def __init__(self) -> None:
        self.kept: list[bool] = []

    def keep(self) -> None:
        self.kept.append(True)

    def release(self) -> None:
        self.kept.append(False)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """[processor seconds of others, more at each look]."""
    state = [0.0, 0.0]

    def others() -> float:
        state[0] += state[1]
        return state[0]

    monkeypatch.setattr(spinning, "_others", others)
    monkeypatch.setattr(spinning, "LOOK_S", 0.002)
    yield state


def made(monkeypatch: pytest.MonkeyPatch) -> tuple[spinning.Spinning, Idle]:
    for name in spinning.OWN_WISHES:
        monkeypatch.delenv(name, raising=False)
    idle = Idle()
    monkeypatch.setattr(spinning._IdleThreads, "find", lambda: idle)
    return spinning.Spinning(len(os.sched_getaffinity(0))), idle


def test_it_sleeps_beside_others_and_spins_again_when_they_have_gone(
    load: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    follows, idle = made(monkeypatch)
    before = threading.active_count()
    with follows.watched():
        load[1] = 1.0
        wait_until(lambda: idle.kept == [True], "threads are kept")
        load[1] = 0.0
        wait_until(lambda: idle.kept == [True, False], "they are released")
    assert threading.active_count() == before


def test_what_was_found_is_kept_for_the_next_answer(load: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    follows, idle = made(monkeypatch)
    with follows.watched():
        load[1] = 1.0
        wait_until(lambda: idle.kept == [True], "threads are kept")
    with follows.watched():
        pass
    assert idle.kept == [True]


@pytest.mark.parametrize("name", spinning.OWN_WISHES)
def test_a_persons_own_setting_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    follows = spinning.Spinning(len(os.sched_getaffinity(0)))
    before = threading.active_count()
    with follows.watched():
        assert threading.active_count() == before
    assert os.environ[name] == "7"


def test_where_the_kernel_does_not_tell_there_is_one_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in spinning.OWN_WISHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(spinning, "_others", lambda: None)
    spinning.Spinning(len(os.sched_getaffinity(0)))
    assert os.environ.pop("GOMP_SPINCOUNT") == "1000"


THREADS = """
import os, time
from rk_gemma_runtime.engines.spinning import _IdleThreads
idle = _IdleThreads.find()
if idle is None:
    print("no libgomp")
else:
    count = lambda: len(os.listdir("/proc/self/task"))
    before = count()
    idle.keep()
    kept = count()
    idle.release()
    until = time.monotonic() + 20
    while count() > before and time.monotonic() < until:  # they leave by themselves
        time.sleep(0.01)
    print(kept - before, count() - before, os.cpu_count())
"""


def test_libgomps_idle_threads_are_one_more_than_processors_and_go_again() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    if done.stdout == "no libgomp\n":
        pytest.skip("no libgomp.so.1 here; apt-get install libgomp1")
    kept, left, processors = map(int, done.stdout.split())
    assert kept == len(os.sched_getaffinity(0)) + 1 or kept == processors + 1
    assert left == 0


BUSY = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"


def test_what_others_compute_is_seen_and_what_this_process_computes_is_not() -> None:
    def share(seconds: float) -> float:
        before, start = spinning._others(), time.monotonic()
        while time.monotonic() - start < seconds:
            pass
        after = spinning._others()
        assert before is not None
        assert after is not None
        return (after - before) / (time.monotonic() - start)

    alone = min(share(0.5) for _ in range(3))
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        beside = max(share(0.5) for _ in range(6))
        busy.kill()
    assert beside > alone + 0.2 or alone > len(os.sched_getaffinity(0)) - 1.2  # or the machine is full without it
