"""Any bytes to the few lines worth a look, in linear time and bounded memory.

Lines are found by needles: short lower-case texts. Almost all input is only searched for them. A line
of any length is cut to a window around what was found in it, and a needle that was met very often is no longer looked
for: what it had to say has been said.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.diagnosis.finder import Finder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK = 1 << 18
BEFORE, AFTER = 1024, 3072  # bytes of a long line around a needle
AHEAD = AFTER + 1024  # bytes that have to be there behind a needle before its line is looked at
SHARED = 128  # bytes that a window has to go on behind a needle to serve it too
LINE_COST, NEEDLE_BUDGET = 100, 1 << 18
SAMPLE = 1 << 20
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\x07\x08\x0c\x1b"))
MOST_CONTROLS = 0.02
BOMS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True)
class RawLine:
    """A line, or the window of a long one; `following` is the beginning of the next line."""

    number: int
    raw: bytes
    needles: frozenset[bytes]
    following: bytes


class Scanner:
    """Feeds on chunks; one use. `size` counts the bytes, `blank` says that all were white space."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._budget = dict.fromkeys(needles, NEEDLE_BUDGET)
        self._finder = Finder(self._budget)
        self.retired: set[bytes] = set()
        self._number = 1
        self._controls = self._sampled = 0
        self.size = 0
        self.blank = True

    @property
    def looks_binary(self) -> bool:
        """Whether the beginning holds more control characters than any log."""
        return self._controls > MOST_CONTROLS * self._sampled

    def retire(self, needle: bytes) -> None:
        """Do not look for this one any more."""
        if self._budget.pop(needle, None) is not None:
            self.retired.add(needle)
            self._finder.retire(needle)

    def lines(self, chunks: Iterable[bytes]) -> Iterator[RawLine]:
        """Return every line that holds a needle, in order."""
        kept, start = b"", 0  # start: where in `kept` the part begins that was not looked at yet
        for chunk in as_utf8(chunks):
            self._survey(chunk)
            data = kept + chunk
            stop = _stop(data, start)
            if stop > start:
                yield from self._part(data, start, stop)
                context = max(0, stop - BEFORE)
                data, start = data[context:], stop - context
            kept = data
        yield from self._part(kept, start, len(kept))

    def _survey(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.blank = self.blank and not chunk.strip(b" \t\r\n\0")
        if self._sampled < SAMPLE:
            self._sampled += len(chunk)
            self._controls += len(chunk) - len(chunk.translate(None, CONTROLS))

    def _part(self, data: bytes, start: int, stop: int) -> Iterator[RawLine]:
        found = self._find(data.lower(), start, stop)
        at = start
        for begin, (end, first, needles) in sorted(found.items()):
            if first > at:
                self._number += data.count(b"\n", at, first)
                at = first
            number = self._number
            raw = data[begin:end]
            yield RawLine(number, raw, frozenset(needles), _following(data, end))
        self._number += data.count(b"\n", at, stop)

    def _find(self, low: bytes, start: int, stop: int) -> dict[int, tuple[int, int, set[bytes]]]:
        """begin of a line: (its end, where the first needle is, needles)"""
        found: dict[int, tuple[int, int, set[bytes]]] = {}
        done: dict[bytes, int] = {}  # where the last window of a needle ended
        begin, end = 0, -1
        for at, needle in self._finder.spots(low, start, stop):
            if at < done.get(needle, 0) or needle not in self._budget:
                continue
            if not begin <= at <= end - SHARED:
                begin, end = _window(low, at)
            done[needle] = end
            entry = found.setdefault(begin, (end, at, set()))
            entry[2].add(needle)
            self._spend(needle, end - begin)
        return found

    def _spend(self, needle: bytes, size: int) -> None:
        self._budget[needle] -= LINE_COST + size
        if self._budget[needle] < 0:
            self.retire(needle)


def _window(low: bytes, at: int) -> tuple[int, int]:
    """Begin and end of the line at `at`; a carriage return ends one too."""
    begin = low.rfind(b"\n", max(0, at - BEFORE), at) + 1 or max(0, at - BEFORE)
    end = low.find(b"\n", at, at + AFTER)
    end = end if end >= 0 else min(len(low), at + AFTER)
    back = low.rfind(b"\r", begin, at) + 1
    forth = low.find(b"\r", at, end)
    return back or begin, forth if forth >= 0 else end


def _following(data: bytes, end: int) -> bytes:
    begin = data.find(b"\n", end, end + 2) + 1
    if not begin:
        return b""
    stop = data.find(b"\n", begin, begin + 512)
    return data[begin : stop if stop >= 0 else begin + 512]


def _stop(data: bytes, start: int) -> int:
    """Find how far `data` can be looked at: up to a line whose next line is there, or into a very long one."""
    limit = len(data) - AHEAD
    if limit <= start:
        return start
    newline = data.rfind(b"\n", start, limit)
    if limit - max(newline, start) >= AHEAD:
        return limit
    return newline + 1 if newline >= 0 else start


def as_utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass the chunks on; UTF-16 with its mark in front, as PowerShell writes, becomes UTF-8."""
    decoder = None
    for number, chunk in enumerate(chunks):
        if number == 0 and chunk[:2] in BOMS:
            decoder = codecs.getincrementaldecoder(BOMS[chunk[:2]])("replace")
        yield decoder.decode(chunk).encode("utf-8", errors="replace") if decoder else chunk
