"""A guarded child process: its output line by line, its events, and how it ended."""

from __future__ import annotations

import json
import logging
import os
import re
import selectors
import subprocess
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.children import above_standard, interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    OnLine = Callable[[str], None]
    OnEvent = Callable[[dict[str, Any]], None]

KEPT = 400
LAST_SIGNAL = 128 + 64
LONGEST = 1 << 16
CHUNK = 1 << 16
GUARD = str(Path(__file__).with_name("guard.py"))
BREAK = re.compile(rb"[\r\n]")
# A bar of progress; what was printed after it, without a line break, is a line of its own.
BAR = re.compile(r"^.{0,200}?\d%\|[^|]*\|\s*\d+/\d+(?:\s*\[[^\]]*\])?|^\[[=>. #-]*\]\s*\d+/\d+(?:\s*\(\d+%\))?")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How a process ended: `signal` if one did it. `lines` are its last ones, without bars of progress."""

    code: int
    signal: int | None
    lines: tuple[str, ...]


@dataclass
class Lines:
    """Takes bytes, gives lines; a bar of progress redraws its line with a carriage return."""

    on_line: OnLine
    rest: bytes = b""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))

    def feed(self, data: bytes) -> None:
        """Take what was read; nothing means the end."""
        *whole, self.rest = BREAK.split(self.rest + data)
        if not data or len(self.rest) > LONGEST:
            whole, self.rest = [*whole, self.rest], b""
        for raw in whole:
            text = raw[:LONGEST].decode("utf-8", errors="replace").rstrip()
            if text:
                log.debug("%s", text)
                left = BAR.sub("", text).strip()
                if left:
                    self.last.append(left)
                self.on_line(text)


class Pipes:
    """Pipes whose ends are closed one by one, and the rest at the end of the block."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def make(self) -> tuple[int, int]:
        """Make one: the end to read, the end to write."""
        ends = os.pipe()
        first, second = above_standard(ends[0]), above_standard(ends[1])
        self._open |= {first, second}
        return first, second

    def close(self, *ends: int) -> None:
        """Close ends that are still open."""
        for end in ends:
            if end in self._open:
                self._open.discard(end)
                os.close(end)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *facts: object) -> None:
        self.close(*self._open.copy())


def run(
    command: list[str],
    *,
    folder: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: OnLine = lambda line: None,
    on_event: OnEvent | None = None,
) -> Ended:
    """Run a program to its end. If this process goes, the guard kills it and removes `folder`. With `on_event` the
    program gets a descriptor's number as its last argument, and each line of JSON on it is an event."""
    with Pipes() as pipes:
        (out, out_in), (events, events_in), (life_out, life) = pipes.make(), pipes.make(), pipes.make()
        more, kept = ([str(events_in)], (events_in,)) if on_event else ([], ())
        process = subprocess.Popen(
            [interpreter(), "-I", GUARD, str(life_out), str(folder or ""), *command, *more],
            stdin=subprocess.DEVNULL, stdout=out_in, stderr=out_in, cwd=cwd, env=None if env is None else dict(env),
            pass_fds=(life_out, *kept), start_new_session=True,
        )  # fmt: skip
        try:
            pipes.close(out_in, events_in, life_out)
            lines = _listen(out, events, on_line, on_event or (lambda event: None))
            code = process.wait()
        except BaseException:
            pipes.close(life)
            with suppress(KeyboardInterrupt):  # a second one must not leave the program alone
                process.wait()
            raise
    return Ended(code, -code if code < 0 else code - 128 if 128 < code <= LAST_SIGNAL else None, lines)


def _listen(out: int, events: int, on_line: OnLine, on_event: OnEvent) -> tuple[str, ...]:
    """Read both until nobody can write to them any more."""
    lines, told = Lines(on_line), Lines(lambda text: on_event(_event(text)))
    with selectors.DefaultSelector() as selector:
        selector.register(out, selectors.EVENT_READ, lines)
        selector.register(events, selectors.EVENT_READ, told)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, CHUNK)
                key.data.feed(data)
                if not data:
                    selector.unregister(key.fd)
    return tuple(lines.last)


def _event(text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except ValueError:
        tree = None
    return tree if isinstance(tree, dict) else {"event": "unknown", "text": text}


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Have a guard remove a folder if this process goes before the block ends."""
    with Pipes() as pipes:
        life_out, life = pipes.make()
        process = subprocess.Popen(
            [interpreter(), "-I", GUARD, str(life_out), str(folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(life_out,),
            start_new_session=True,
        )  # fmt: skip
        pipes.close(life_out)
        try:
            yield
        finally:
            with suppress(BrokenPipeError):  # the guard was killed
                os.write(life, b"k")
            process.wait()
