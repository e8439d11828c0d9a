"""What a library prints, line by line: level, component, time and text.

librkllmrt writes `I rkllm: text` and `E RKNN: [HH:MM:SS.mmm] text` (strings of 1.2.1b1; 1.1.x prints some lines
bare).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from dataclasses import dataclass

from rk_gemma_runtime.wire import MARK

KEPT_LINES = 200
LINE_LIMIT = 4096
KEPT_MARKS = 8  # a job has two at most
_SHAPE = re.compile(
    r"(?P<level>[EWIDT]) (?P<component>rkllm|RKNN|rk-gemma)\s?: ?(?:\[(?P<time>[0-9:.]{8,15})\] ?)?(?P<text>.*)"
)
_MARK = re.compile(f"{MARK}([0-9]{{1,10}})")
_LEVELS = {"E": "error", "W": "warning", "I": "info", "D": "debug", "T": "trace"}
_LOGGING = {"error": logging.ERROR, "warning": logging.WARNING, "debug": logging.DEBUG, "trace": logging.DEBUG}
log = logging.getLogger("rk_gemma_runtime.library")


@dataclass(frozen=True)
class LibraryLine:
    """One line as printed (`raw`), and its parts; level, component and time are "" where it has none. `read_at` is
    when it was read, in seconds since the epoch."""

    level: str
    component: str
    time: str
    text: str
    raw: str
    read_at: float


def parse_line(raw: str, read_at: float) -> LibraryLine:
    """Any text is a line; what has not the library's shape is text alone."""
    shape = _SHAPE.fullmatch(raw)
    if shape is None:
        return LibraryLine("", "", "", raw, raw, read_at)
    return LibraryLine(_LEVELS[shape["level"]], shape["component"], shape["time"] or "", shape["text"], raw, read_at)


class LineBook:
    """The last 200 lines. One thread adds; any thread looks."""

    def __init__(self) -> None:
        self._lines: deque[LibraryLine] = deque(maxlen=KEPT_LINES)
        self._changed = threading.Condition()
        self._mark = 0
        self._count = 0  # lines so far
        self._marks: deque[tuple[int, int]] = deque([(0, 0)], maxlen=KEPT_MARKS)  # each with the count at it
        self._ended = False

    def add(self, data: bytes) -> None:
        """A line as it was read. A mark of the worker's is not kept: it says that all before it has been read."""
        raw = data.decode("utf-8", errors="replace").rstrip()
        mark = _MARK.fullmatch(raw)
        if mark is not None:
            with self._changed:
                self._mark = int(mark[1])
                self._marks.append((self._mark, self._count))
                self._changed.notify_all()
        elif raw:
            line = parse_line(raw, time.time())
            self._lines.append(line)
            self._count += 1
            log.log(_LOGGING.get(line.level, logging.INFO), "%s", raw)

    def end(self) -> None:
        """Nothing more will be read: no mark is waited for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_mark(self, number: int, seconds: float) -> bool:
        """Block until mark `number` was read, or the end, or for `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or self._mark >= number, seconds)

    def lines(self) -> tuple[LibraryLine, ...]:
        """Oldest first."""
        return tuple(self._lines)

    def raw(self) -> tuple[str, ...]:
        """The same as they were printed."""
        return tuple(line.raw for line in self._lines.copy())

    def fresh(self, mark: int = 0) -> tuple[str, ...]:
        """What was printed since the mark before `mark`; without one, since the last."""
        lines, marks = self.raw(), list(self._marks)
        since = next((count for number, count in reversed(marks) if not mark or number < mark), 0)
        return lines[max(0, len(lines) - (self._count - since)) :]


def read_lines(fd: int, book: LineBook) -> None:
    """Fill the book from a pipe until its end. For a thread of its own, which must hold nothing but these two: what a
    program drops is not to be kept alive by its reader."""
    try:
        with os.fdopen(fd, "rb") as stream:
            while line := stream.readline(LINE_LIMIT):
                book.add(line)
                while len(line) == LINE_LIMIT and line[-1:] != b"\n":  # one endless line must not push out the rest
                    line = stream.readline(LINE_LIMIT)
    finally:
        book.end()
