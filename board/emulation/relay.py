"""Waiting for a child: signals are passed on to it, its exit status is ours, and it never outlives us."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
WATCHED = (*FORWARDED, signal.SIGCHLD)
SI_KERNEL = 0x80
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def block() -> set[int]:
    """Hold back the watched signals until `wait`; call before the fork, so that none is lost."""
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)}


def prepare_exec(mask: Iterable[int]) -> None:
    """Undo in a child, before exec, what Python and `block` did to its signals. No core files: qemu writes
    its own into the working directory."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the thread that forked this process ends, however it ends."""
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def wait(child: int, receiver: Callable[[], int] | None = None) -> int:
    """Block until CHILD ends; return its exit status, 128+N for a signal. Other children are reaped too.

    A signal from the terminal is not passed on: the terminal has sent it to the whole group already.
    """
    while True:
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return status
        elif info.si_code != SI_KERNEL:
            _send(receiver() if receiver else child, info.si_signo)


def _reap(child: int) -> int | None:
    found: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
