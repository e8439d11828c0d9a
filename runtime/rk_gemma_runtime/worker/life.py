"""How a worker begins and ends: limits, signals, and that it never outlives its parent.

Three things end it with its parent. It reads end-of-file from its socket. It sees that it has another parent, which
also holds where a child that the parent forked keeps the socket open. And the kernel kills it when the lifeline
closes, a pipe that only the parent holds: that needs no thread of this process, and llama.cpp keeps Python's lock
while it loads.
"""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
from contextlib import suppress

F_SETSIG = 10  # fcntl.h; Python has no name for it
EARLIER_VICTIM = 500
MOST_SCORE = 1000
log = logging.getLogger(__name__)


def begin(lifeline: int) -> None:
    """At the very start of a worker."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # systemd and terminals signal whole groups; when an answer ends is the parent's decision.
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the parent may ignore it, and that is inherited
    _hold_lifeline(lifeline)
    _no_core_dump()
    _be_an_earlier_victim()


def raise_fd_limit(wanted: int) -> tuple[int, int]:
    """Raise the soft limit of open files as far as is allowed. Returns it as it was and as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft, soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft, wanted


def bytes_read() -> int:
    """Bytes that this process has read so far, from files or through mapped pages; 0 where the kernel does not
    tell."""
    with suppress(OSError, ValueError):
        with open("/proc/self/io", "rb") as file:
            numbers = dict(line.split(b": ") for line in file.read().splitlines())
        return max(int(numbers[b"rchar"]), int(numbers[b"read_bytes"]))
    return 0


def _hold_lifeline(lifeline: int) -> None:
    """SIGKILL for this process when the other end closes (fcntl(2): O_ASYNC, F_SETSIG)."""
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _no_core_dump() -> None:
    """A crash would write gigabytes of weights, and the prompt, to disk. 1 in place of 0 also keeps the kernel from
    piping the dump to a handler (core(5))."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _be_an_earlier_victim() -> None:
    """When memory runs out the kernel should end the worker, which can be replaced, and not the program."""
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
            score = min(MOST_SCORE, int(file.read()) + EARLIER_VICTIM)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):
        log.debug("oom_score_adj cannot be raised", exc_info=True)
