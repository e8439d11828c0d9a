"""Where any of some hundred short texts is in a part of a log.

A little is searched for each text in turn. From a quarter of a megabyte on NumPy looks at all places at once: each
text has four characters that are rare in logs, and only texts whose four are there are searched for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

GRAM = 4
# How much is searched before NumPy is worth its import.
LITTLE = 1 << 18
# Per needle and chunk; more hits would not change the diagnosis.
MOST_SPOTS = 1000
# From here on texts are searched for, and below it places are looked at one by one.
MANY_PLACES = 2000
MIX = 2654435761  # spreads the bits of a 32-bit number
# Characters as often as logs have them, the most frequent first. What is not here is rarer than all.
FREQUENT = b" e0ta1o2i3nsr45l6:7hd89cu-m./fpgywb_=v[](),k"


class Finder:
    """Of lower-case needles of at least four characters."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._needles = set(needles)
        self._searched = 0
        self._table: GramTable | None = None

    def retire(self, needle: bytes) -> None:
        """Do not find this one any more."""
        self._needles.discard(needle)
        if self._table is not None:
            self._table.retire(needle)

    def spots(self, low: bytes, start: int, stop: int) -> list[tuple[int, bytes]]:
        """(position, needle), in order, of the needles that begin in [start, stop) of `low`, which is lower case."""
        self._searched += stop - start
        if self._searched <= LITTLE:
            return search(self._needles, low, start, stop)
        if self._table is None:
            self._table = GramTable(self._needles)
        return self._table.spots(low, start, stop)


def search(needles: Iterable[bytes], low: bytes, start: int, stop: int) -> list[tuple[int, bytes]]:
    """As Finder.spots, one needle after the other."""
    found = []
    for needle in needles:
        end = stop + len(needle) - 1
        at = low.find(needle, start, end)
        left = MOST_SPOTS
        while at >= 0 and left:
            found.append((at, needle))
            left -= 1
            at = low.find(needle, at + len(needle), end)
    return sorted(found)


class GramTable:
    """The needles by their rarest four characters."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._by_gram: dict[bytes, dict[bytes, int]] = {}  # gram: needle: where in it the gram is
        self._placed = b""
        for needle in sorted(needles, key=lambda needle: (len(needle), needle)):
            gram, offset = min(((needle[i : i + GRAM], i) for i in range(len(needle) - GRAM + 1)), key=self._cost)
            self._by_gram.setdefault(gram, {})[needle] = offset
            self._placed += b"\n" + needle
        self._marked = False

    def _cost(self, choice: tuple[bytes, int]) -> tuple[int, int]:
        """Estimate how often a search would stop there in vain: few needles should hold a gram, and its first two
        characters are what is looked for."""
        gram = choice[0]
        common = [len(FREQUENT) - FREQUENT.index(char) if char in FREQUENT else 0 for char in gram]
        return (1 + common[0] * common[1]) * (1 + 8 * self._placed.count(gram)), sum(common)

    def _mark(self) -> None:
        import numpy as np

        self._marked = True
        self._reach = GRAM + max((max(group.values()) for group in self._by_gram.values()), default=0)
        self._first, self._second = np.zeros((2, 1 << 16), dtype=np.bool_)
        for gram in self._by_gram:
            self._first[int.from_bytes(gram[:2], "little")] = True
            self._second[int.from_bytes(gram[2:], "little")] = True

    def retire(self, needle: bytes) -> None:
        """Do not find this one any more."""
        self._by_gram = {
            gram: left
            for gram, group in self._by_gram.items()
            if (left := {other: offset for other, offset in group.items() if other != needle})
        }
        self._marked = False

    def spots(self, low: bytes, start: int, stop: int) -> list[tuple[int, bytes]]:
        """As Finder.spots."""
        if not self._marked:
            self._mark()
        part = low[start : stop + self._reach]
        places = self._places(part)
        by_gram = self._by_gram
        if len(places) > MANY_PLACES:
            seen = _hashes(part, places)
            grams = [gram for gram in by_gram if seen[_hash(int.from_bytes(gram, "little"))]]
            return search([needle for gram in grams for needle in by_gram[gram]], low, start, stop)
        found = []
        for place in places.tolist():
            for needle, offset in by_gram.get(low[start + place : start + place + GRAM], {}).items():
                at = start + place - offset
                if start <= at < stop and low.startswith(needle, at):
                    found.append((at, needle))
        return sorted(found)

    def _places(self, part: bytes) -> NDArray[np.int64]:
        """Find where in `part` a gram may begin."""
        import numpy as np

        first, second = np.zeros((2, len(part) + GRAM), dtype=np.bool_)
        for shift in (0, 1):  # every second place
            pairs = np.frombuffer(part, dtype="<u2", count=max(0, len(part) - shift) // 2, offset=shift)
            first[shift : shift + 2 * len(pairs) : 2] = self._first[pairs]
            second[shift : shift + 2 * len(pairs) : 2] = self._second[pairs]
        return np.flatnonzero(first[: len(part)] & second[2 : len(part) + 2])


def _hash(code: int) -> int:
    return (code * MIX & 0xFFFFFFFF) >> 16


def _hashes(part: bytes, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Hash the four characters at these places."""
    import numpy as np

    data = np.frombuffer(part, dtype=np.uint8).astype(np.uint32)
    codes = data[places]
    for i in range(1, GRAM):
        codes |= data[places + i] << np.uint32(8 * i)
    seen = np.zeros(1 << 16, dtype=np.bool_)
    seen[(codes * np.uint32(MIX)) >> np.uint32(16)] = True
    return seen
