"""A worker process: spawned, watched, ended. Its stdout and stderr are read from before the library loads."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import WorkerDied
from rk_gemma_runtime.supervisor.lines import LineBook
from rk_gemma_runtime.supervisor.refusal import telling_line

if TYPE_CHECKING:
    from rk_gemma_runtime.supervisor.lines import LibraryLine

LINE_LIMIT = 4096
MOST_SCRATCH = 90
# Level 2 prints prompts and their ids (SDK manual 1.3.0, 3.3.3): what a person wrote is not for a log.
LOG_LEVEL, QUIET, KEEP_LOG_LEVEL = "RKLLM_LOG_LEVEL", {"", "0", "1"}, "RK_GEMMA_LOG_PROMPTS"
log = logging.getLogger(__name__)


class Process:
    """One spawned worker. It leaves when its socket closes, so also when this process ends in whatever way."""

    def __init__(self, needs_scratch: bool) -> None:
        """Spawn. `needs_scratch`: name a private directory, which the worker makes and removes."""
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        name = f"rk-gemma-{secrets.token_hex(8)}"
        self.scratch = _scratch(name) if needs_scratch else None
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "rk_gemma_runtime.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=_environment(),
            )
        finally:
            theirs.close()
            os.close(write_end)
        self.socket = ours
        self._book = LineBook()
        self._reader = threading.Thread(target=self._read, args=(read_end,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def lines(self) -> tuple[LibraryLine, ...]:
        """What the worker printed last, oldest first, at most 200 lines."""
        return self._book.lines()

    def settled_lines(self, mark: int = 0) -> tuple[str, ...]:
        """The same as printed, after a short wait for what is still on its way: up to the worker's `mark`, or, from a
        worker that has ended, up to the end."""
        if mark:
            self._book.wait_for_mark(mark, 1.0)
        else:
            self._reader.join(0.05 if self._child.poll() is None else 1.0)
        return self._book.raw()

    def fresh_lines(self, mark: int = 0) -> tuple[str, ...]:
        """The part of `settled_lines` that is no older than what led to `mark`; without one, since the last mark."""
        return self._book.fresh(mark)

    def died(self) -> WorkerDied:
        """Reap a worker whose socket has closed, and say how it ended."""
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            self.kill()
            text = "the worker closed its connection and did not leave; it was killed"
            return WorkerDied(text, self.settled_lines())
        lines = self.settled_lines()
        quoted = telling_line(self.fresh_lines())
        return WorkerDied(f"the worker {_describe(code)}" + (f": {quoted}" if quoted else ""), lines, code)

    def kill(self) -> None:
        """End the worker now and reap it."""
        with suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()

    def close(self, grace_s: float = 2.0) -> None:
        """Let the worker go: closing the socket tells it to. May be called twice."""
        self.socket.close()
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(1.0)
        if self.scratch is not None:  # still there only if the worker was killed while it loaded
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _read(self, fd: int) -> None:
        try:
            with os.fdopen(fd, "rb") as stream:
                while line := stream.readline(LINE_LIMIT):
                    self._book.add(line)
                    while (
                        len(line) == LINE_LIMIT and line[-1:] != b"\n"
                    ):  # one endless line must not push out the rest
                        line = stream.readline(LINE_LIMIT)
        finally:
            self._book.end()


def _scratch(name: str) -> Path:
    """Where a Unix socket's name has room: 107 bytes in all, and a TMPDIR may be long."""
    given = Path(tempfile.gettempdir()) / name
    return given if len(os.fsencode(given)) <= MOST_SCRATCH else Path("/tmp") / name


def _environment() -> dict[str, str]:
    """The child must find this package where the parent did, installed or not.

    llama.cpp's threads wait for each other by spinning in libgomp; on a board that does anything else besides, that
    costs a factor of ten. A short spin costs nothing on an idle one.
    """
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    spin = os.environ.get("GOMP_SPINCOUNT", "1000")
    return {
        **os.environ,
        **_log_level(),
        "GOMP_SPINCOUNT": spin,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUNBUFFERED": "1",  # C's stdout too, or what the library printed before it hung would be lost
    }


def _log_level() -> dict[str, str]:
    level = os.environ.get(LOG_LEVEL, "")
    # How the library reads a number with anything around it is not known.
    if level in QUIET or os.environ.get(KEEP_LOG_LEVEL) == "1":
        return {}
    log.warning("%s=%s would print prompts into logs: lowered to 1 (%s=1 keeps it)", LOG_LEVEL, level, KEEP_LOG_LEVEL)
    return {LOG_LEVEL: "1"}


def _describe(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
