"""Reads numbers and strings one after the other, never beyond the end, with one chunk in memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.source import Source

CHUNK = 1 << 20
U64 = struct.Struct("<Q")


class Beyond(Exception):
    """A length that reaches beyond the end of the file. `at` is where it stands."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(f"{what} at byte {at} reaches beyond its end")
        self.at = at


class Spent(Exception):
    """More bytes to be read than were allowed."""

    def __init__(self, at: int, budget: int) -> None:
        super().__init__(
            f"its head was read for {budget >> 20} MiB up to byte {at} and goes on, which no model's does"
        )


class Cursor:
    """A place in a Source. Raises Beyond where the file ends, Spent where more than `budget` bytes would be read."""

    def __init__(self, source: Source, at: int = 0, budget: int | None = None) -> None:
        self._source, self._budget, self._used = source, budget, 0
        self.at = at
        self._chunk, self._start = b"", 0

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return self._source.size - self.at

    def take(self, length: int, what: str) -> bytes:
        """Return the next `length` bytes, and go behind them."""
        self._check(length, what)
        place = self._load(length)
        found = self._chunk[place : place + length]
        if len(found) < length:  # the file became shorter while it was read
            raise Beyond(self.at, what)
        self.at += length
        return found

    def skip(self, length: int, what: str) -> None:
        """Go behind the next `length` bytes without reading them."""
        self._check(length, what)
        self.at += length

    def number(self, form: struct.Struct, what: str) -> int | float | bool:
        """Read one number."""
        value: int | float | bool = form.unpack(self.take(form.size, what))[0]
        return value

    def length(self, what: str) -> int:
        """Read a length or a count of 64 bits. It is not yet held against the file's size."""
        return int(self.number(U64, what))

    def skip_strings(self, count: int, what: str) -> tuple[int, int]:
        """Go behind `count` strings; return place and length of the longest. A vocabulary has a quarter of a million,
        so there is not a call for each."""
        best_at = best_size = 0
        unpack = U64.unpack_from
        while count:
            self._check(U64.size, what)
            place = self._load(U64.size)
            chunk, base = self._chunk, self._start
            if len(chunk) - place < U64.size:
                raise Beyond(self.at, what)
            last = len(chunk) - U64.size
            while count and place <= last:
                (size,) = unpack(chunk, place)
                place += U64.size
                if size > best_size:
                    best_at, best_size = base + place, size
                place += size
                count -= 1
            self.at = base + place
            if self.left < 0:
                raise Beyond(base, what)
        return best_at, best_size

    def _load(self, length: int) -> int:
        """Have `length` bytes from here in the chunk, as far as there are so many; where in it they begin."""
        place = self.at - self._start
        if place < 0 or place + length > len(self._chunk):
            wanted = min(max(length, CHUNK), self.left)
            self._used += wanted
            if self._budget is not None and self._used > self._budget:
                raise Spent(self.at, self._budget)
            self._chunk = self._source.read(self.at, wanted)
            self._start, place = self.at, 0
        return place

    def _check(self, length: int, what: str) -> None:
        if length > self.left:
            raise Beyond(self.at, what)
