"""How llama.cpp's threads wait for each other: by spinning on a quiet machine, by sleeping on a busy one.

They meet at barriers of libgomp, hundreds of times a token. There a thread spins for a while before it sleeps. On a
quiet machine long spinning is a tenth faster; beside any other busy process it takes the processor from the very
thread that is waited for, and costs half of the speed or more. libgomp itself has both: it spins for 300,000 turns,
but for 100 only while it manages more threads than there are processors (GOMP_SPINCOUNT in its manual). So, while
somebody else wants these processors, this module keeps some threads of libgomp that do nothing.

Whether somebody does is what the kernel tells of the processors (/proc/stat) less what this process has used of them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "libgomp.so.1"  # what xllamacpp is linked to
OWN_WISHES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # of the person who runs this: left alone
BETWEEN = "1000"  # where the load cannot be seen: a tenth slower when quiet, a third when busy
LOOK_S = 0.2  # /proc/stat counts hundredths of a second
# Processors that others use, beyond those that this process leaves free.
CROWDED, QUIET = 0.3, 0.15
CALM_LOOKS = 2  # quiet ones in a row before it spins again
log = logging.getLogger(__name__)


class Spinning:
    """Follows the load while an answer is made. Used from one thread. Where llama.cpp is not linked to libgomp
    nothing is done."""

    def __init__(self, threads: int) -> None:
        """Before llama.cpp, which has so many threads, is loaded: libgomp reads its environment once."""
        self._free = max(0, len(os.sched_getaffinity(0)) - threads)
        told = any(name in os.environ for name in OWN_WISHES)
        if not told and _others() is None:
            os.environ[OWN_WISHES[0]] = BETWEEN
        self._follows = not told and _others() is not None
        self._idle: _IdleThreads | None = None  # looked for when it is needed: it brings ctypes
        self._crowded = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, the load is looked at. What was found is kept for the next time."""
        if not self._follows:
            yield
            return
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, done: threading.Event) -> None:
        calm, before, then = 0, _others() or 0.0, time.monotonic()
        while not done.wait(LOOK_S):
            used, now = _others() or 0.0, time.monotonic()
            share, before, then = (used - before) / (now - then) - self._free, used, now
            calm = calm + 1 if share < QUIET else 0
            if share > CROWDED and not self._crowded:
                self._crowd()
            elif calm >= CALM_LOOKS and self._idle is not None and self._crowded:
                self._crowded = False
                self._idle.release()

    def _crowd(self) -> None:
        self._idle = self._idle or _IdleThreads.find()
        self._follows = self._crowded = self._idle is not None
        if self._idle is not None:
            self._idle.keep()


class _IdleThreads:
    """Threads of libgomp that sleep, one more than there are processors."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._release = threading.Event()
        self._holder: threading.Thread | None = None

    @classmethod
    def find(cls) -> _IdleThreads | None:
        """None where llama.cpp does not use this library."""
        import ctypes

        try:
            library = ctypes.CDLL(LIBRARY)
            library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            library.GOMP_parallel.restype = None
            return cls(library)
        except (OSError, AttributeError):
            log.debug("no %s: how threads wait cannot be changed", LIBRARY)
            return None

    def keep(self) -> None:
        """Have them. Returns when they are there."""
        self._release.clear()
        there = threading.Event()
        self._holder = threading.Thread(target=self._hold, args=(there,), daemon=True)
        self._holder.start()
        there.wait()

    def release(self) -> None:
        """Let them go: libgomp counts a team's threads as long as the thread that made it lives."""
        holder, self._holder = self._holder, None
        if holder is not None:
            self._release.set()
            holder.join()

    def _hold(self, there: threading.Event) -> None:
        import ctypes

        nothing = ctypes.cast(self._library.omp_get_num_procs, ctypes.c_void_p)  # takes no argument, changes nothing
        self._library.GOMP_parallel(nothing, None, self._library.omp_get_num_procs() + 1, 0)
        there.set()
        self._release.wait()


def _others() -> float | None:
    """Processor seconds that others have used so far on the processors of this process; None where it is not told."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        with open("/proc/stat", encoding="ascii") as file:
            rows = [line.split() for line in file if line.split(" ")[0] in mine]
        # user nice system idle iowait irq softirq steal (proc(5))
        ticks = sum(sum(map(int, row[1:4])) + sum(map(int, row[6:9])) for row in rows)
    except (OSError, ValueError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time() if rows else None
