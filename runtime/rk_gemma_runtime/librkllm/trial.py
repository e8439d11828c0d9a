"""Runs `probe` on a library in a process of its own and reports how that ended. A crash there harms nothing."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rk_gemma_runtime.children import above_standard, interpreter
from rk_gemma_runtime.errors import EngineError

PROBE = Path(__file__).with_name("probe.py")
LIMIT_S = 10.0
MOST_ANSWER = 1 << 16
MOST_TALK = 2048
STAGES = {"loading": "loading it", "calling": "its rkllm_createDefaultParam"}


@dataclass(frozen=True)
class Trial:
    """`runs`: (fill or None, bytes afterwards). `refused`: the loader's message. `failure`: how the process ended, if
    it did before it had answered. One of the three is given."""

    runs: tuple[tuple[int | None, bytes], ...] = ()
    refused: str = ""
    failure: str = ""


def try_library(path: Path, limit_s: float = LIMIT_S) -> Trial:
    """Load the library in a process of its own and ask it for its defaults. Blocks for `limit_s` at most."""
    read, write = map(above_standard, os.pipe())
    # Neither the environment's Python settings nor site-packages: the probe needs the standard library only.
    try:
        command = [interpreter(), "-I", "-S", str(PROBE), str(write), str(path), str(limit_s)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(write,),
            start_new_session=True,
        )
    except (OSError, EngineError) as error:
        os.close(read)
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        return Trial(failure=f"it could not be tried: {reason}")
    finally:
        os.close(write)
    with process, os.fdopen(read, "rb", buffering=0):
        return _Watch(process, read, limit_s).result()


class _Watch:
    """Reads what the child answers and, so that it never waits for us, what the library prints."""

    def __init__(self, process: subprocess.Popen[bytes], answer: int, limit_s: float) -> None:
        assert process.stdout is not None
        self._process, self._answer_fd, self._talk_fd = process, answer, process.stdout.fileno()
        self._limit_s, self._deadline = limit_s, time.monotonic() + limit_s
        self._answer = self._talk = b""

    def result(self) -> Trial:
        try:
            self._read()
            status = self._status()
        finally:
            self._end()
        lines = self._answer.decode(errors="replace").splitlines()
        if lines and lines[-1] == "end":
            return _trial(lines)
        return Trial(failure=self._failure(lines, status))

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (self._answer_fd, self._talk_fd):
                selector.register(fd, selectors.EVENT_READ)
            while not self._answer.endswith(b"end\n") and len(self._answer) <= MOST_ANSWER:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return
                for key, _ in selector.select(left):
                    data = os.read(key.fd, 1 << 16)
                    if key.fd == self._talk_fd:
                        self._talk = (self._talk + data)[-MOST_TALK:]
                    elif data:
                        self._answer += data
                    else:
                        return
                    if not data:
                        selector.unregister(key.fd)

    def _status(self) -> int | None:
        """Exit status of a child that ends by itself in time."""
        if self._answer.endswith(b"end\n"):
            return None
        try:
            talk, _ = self._process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        self._talk = (self._talk + talk)[-MOST_TALK:]
        return self._process.returncode

    def _end(self) -> None:
        """The child is not reaped yet, so its number is still its own."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # unless the program ignores SIGCHLD
                os.killpg(self._process.pid, signal.SIGKILL)

    def _failure(self, lines: list[str], status: int | None) -> str:
        where = next((STAGES[line] for line in reversed(lines) if line in STAGES), "trying it")
        if status is None:
            return f"{where} took longer than {self._limit_s:g} s"
        how = f"ended with {_signal(-status)}" if status < 0 else f"ended the process (status {status})"
        said = self._talk.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        return f"{where} {how}" + (f", after: {last[:120]}" if last else "")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _trial(lines: list[str]) -> Trial:
    runs: list[tuple[int | None, bytes]] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "error":
            return Trial(refused=rest)
        if word == "run":
            fill, _, data = rest.partition(" ")
            runs.append((None if fill == "-" else int(fill), bytes.fromhex(data)))
    return Trial(runs=tuple(runs))
