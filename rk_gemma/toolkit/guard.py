"""A small process between us and a program that may run for hours: when we go, it ends the program and tidies up.

    python -I guard.py LIFELINE FOLDER [PROGRAM ARGUMENT...]

LIFELINE is the reading end of a pipe that only we hold open. At its end the guard kills the program with all that it
has started, then removes FOLDER, unless a byte came first or FOLDER is empty. An unfinished bundle around it in which
nothing was finished goes too. It exits as the program did, or with 128 + N for signal N. Without a program it only
watches over the folder. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STUBBORN_S = 5.0
NOTES = "export.json"


def main() -> int:
    """Run as the module says."""
    lifeline, folder, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # What the program's children leave behind becomes ours, so that nothing escapes by forking twice.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bell, ringer = os.pipe()
    os.set_blocking(ringer, False)
    signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    child = _start(command, lifeline) if command else None
    status = _wait(lifeline, bell, child)
    if child is not None:
        _end(child)
    if status is None and folder:
        shutil.rmtree(folder, ignore_errors=True)
        _sweep(os.path.dirname(folder))
    return status or 0


def _sweep(staging: str) -> None:
    """Remove the directory of an unfinished bundle that holds nothing but its notes, unless somebody uses it."""
    try:
        if not os.path.basename(staging).endswith(".partial") or set(os.listdir(staging)) != {NOTES}:
            return
        fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # another guard was faster
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(staging, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def _start(command: list[str], lifeline: int) -> subprocess.Popen[bytes]:
    def ready() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)

    # Every descriptor but the lifeline goes on to the program: which ones there are was chosen when we were started.
    os.set_inheritable(lifeline, False)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, preexec_fn=ready)


def _wait(lifeline: int, bell: int, child: subprocess.Popen[bytes] | None) -> int | None:
    """Return the exit status, or 0 for a byte on the lifeline; None for its end."""
    while True:
        code = child.poll() if child is not None else None
        if code is not None:
            return code if code >= 0 else 128 - code
        ready, _, _ = select.select([lifeline, bell], [], [])
        if bell in ready:
            os.read(bell, 64)
        if lifeline in ready:
            return 0 if os.read(lifeline, 1) else None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the program's group, and whatever of it has left the group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    until = time.monotonic() + STUBBORN_S
    while time.monotonic() < until:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        except ChildProcessError:
            return


def _children() -> list[int]:
    me, found = os.getpid(), []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == me:
                found.append(int(name))
    return found


if __name__ == "__main__":
    os._exit(main())
