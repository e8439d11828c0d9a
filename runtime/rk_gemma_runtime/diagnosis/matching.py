"""Patterns against lines: what was met, where, and the values beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma_runtime.diagnosis.clean import ASKED_FOR_STATUS, clean, goes_on, only_talk, without_prefix
from rk_gemma_runtime.diagnosis.firstword import first_word, number_of
from rk_gemma_runtime.diagnosis.readings import READERS, STACK, Reader, Readings
from rk_gemma_runtime.diagnosis.scan import Scanner

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    from rk_gemma_runtime.diagnosis.book import Pattern
    from rk_gemma_runtime.diagnosis.scan import RawLine

EVIDENCE_LENGTH = 300
TOLD = "\0"  # behind it stands what was made of a line, which is matched and not quoted
KEPT_HITS = 8
# A needle all of whose patterns were met so often has said what it has to say.
ENOUGH = 24
# The same for values, and for the words of the NPU stack.
ENOUGH_VALUES = 200
# What somebody asks a model about, and it answers.
TALKED_OF = ("accuses", "rest")
# Lines of the NPU stack that are also read as one with the next line.
MOST_JOINS = 500


@dataclass(frozen=True)
class Hit:
    """A pattern met: the line's number, what to show of it, and the regex's groups."""

    number: int
    text: str
    groups: tuple[tuple[str, str], ...]


@dataclass
class Matches:
    """Hits by pattern, the first eight of each, and how many there were."""

    readings: Readings
    hits: dict[str, list[Hit]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    stack_line: Hit | None = None  # the first line of the NPU stack, of whatever kind


class Matcher:
    """Holds the patterns against what the scanner finds. One use."""

    def __init__(self, patterns: tuple[Pattern, ...], readings: Readings) -> None:
        self._patterns: dict[bytes, list[Pattern]] = {}
        self._readers: dict[bytes, list[Reader]] = {}
        for pattern in patterns:
            for needle in pattern.needles:
                self._patterns.setdefault(needle.encode(), []).append(pattern)
        for reader in READERS:
            for needle in reader.needles:
                self._readers.setdefault(needle.encode(), []).append(reader)
        self._stack = frozenset(word.encode() for word in STACK)
        self.scanner = Scanner({*self._patterns, *self._readers, *self._stack})
        self.found = Matches(readings)
        self._joins = 0
        self._read: dict[bytes, int] = {}  # lines by needle, of those that have readers

    def run(self, chunks: Iterable[bytes]) -> Matches:
        """Read everything."""
        for line in self.scanner.lines(chunks):
            self._line(line)
        return self.found

    def _line(self, line: RawLine) -> None:
        text = clean(line.raw)
        if not text:
            return
        body = without_prefix(text)
        word = first_word(line.raw)
        met = self._match(line.needles, line.number, f"{text}{TOLD}got {number_of(word)}" if word else text, body)
        stack = bool(line.needles & self._stack)
        if not stack and not body.endswith(ASKED_FOR_STATUS):
            return
        if stack and self.found.stack_line is None:
            self.found.stack_line = Hit(line.number, text[:EVIDENCE_LENGTH], ())
        if line.following and self._joins < MOST_JOINS:
            self._joins += 1
            self._match_wrapped(line, body, met)
            if self._joins == MOST_JOINS:
                self._retire(self._stack)

    def _match(self, needles: frozenset[bytes], number: int, text: str, body: str) -> set[str]:
        """Take down the patterns that the line meets, and its values; returns their names."""
        rest, met = [], set()
        candidates = {p.name: p for needle in needles for p in self._patterns.get(needle, ())}
        for pattern in candidates.values():
            if pattern.role == "rest":
                if _told(pattern, text, body):
                    rest.append(pattern)
            elif self._take(pattern, number, text, body):
                met.add(pattern.name)
        if rest and not met and not self._explained(text):
            met.update(p.name for p in rest if self._take(p, number, text, body))
        for needle in needles & self._readers.keys():
            for reader in self._readers[needle]:
                self.found.readings.read(reader, number, text)
            self._read[needle] = self._read.get(needle, 0) + 1
            if self._read[needle] >= ENOUGH_VALUES:
                self._retire((needle,))
        return met

    def _explained(self, text: str) -> bool:
        """Whether a pattern that is no longer looked for knows the line; the others have been asked."""
        low = text.lower().encode()
        groups = (self._patterns.get(needle, []) for needle in self.scanner.retired if needle in low)
        return any(p.role != "rest" and p.search(text, text) for group in groups for p in group)

    def _match_wrapped(self, line: RawLine, body: str, met: set[str]) -> None:
        """Match the line and the next one as one, for patterns that neither meets alone."""
        following = without_prefix(clean(line.following))
        if not goes_on(body, following):
            return
        joined = f"{body} {following}"
        low = joined.lower().encode()
        needles = [n for n in (*self._patterns, *self._readers) if n in low]
        alone = following.lower().encode()
        new = {
            p.name: p for n in needles for p in self._patterns.get(n, ()) if p.name not in met and p.role != "rest"
        }
        for pattern in new.values():
            if not (any(n.encode() in alone for n in pattern.needles) and pattern.regex.search(following)):
                self._take(pattern, line.number, joined, joined)
        for needle in needles:
            for reader in self._readers.get(needle, ()):
                if not reader.regex.search(following) and not reader.regex.search(body):
                    self.found.readings.read(reader, line.number, joined)

    def _take(self, pattern: Pattern, number: int, text: str, body: str) -> bool:
        found = _told(pattern, text, body)
        if found is None:
            return False
        name = pattern.name
        count = self.found.counts[name] = self.found.counts.get(name, 0) + 1
        kept = self.found.hits.setdefault(name, [])
        if len(kept) < KEPT_HITS and not any(hit.number == number for hit in kept):
            groups = tuple((k, v) for k, v in found.groupdict().items() if v)
            said = text.partition(TOLD)[0]
            kept.append(Hit(number, excerpt(said, 0 if pattern.bare else found.start()), groups))
        if count >= ENOUGH:
            self._retire(word.encode() for word in pattern.needles)
        return True

    def _retire(self, needles: Iterable[bytes]) -> None:
        """Stop looking for needles that no pattern needs any more."""
        for needle in needles:
            waiting = (
                any(self.found.counts.get(p.name, 0) < ENOUGH for p in self._patterns.get(needle, ()))
                or (needle in self._readers and self._read.get(needle, 0) < ENOUGH_VALUES)
                or (needle in self._stack and self._joins < MOST_JOINS)
            )
            if not waiting:
                self.scanner.retire(needle)


def _told(pattern: Pattern, text: str, body: str) -> re.Match[str] | None:
    """Hold the pattern against the line; a word of a chat is not a line of a program."""
    found = pattern.search(text, body)
    if found is not None and pattern.role in TALKED_OF and only_talk(found.string, found.start()):
        return None
    return found


def excerpt(text: str, at: int) -> str:
    """Cut a line to 300 characters, with the place that was met among them."""
    if len(text) <= EVIDENCE_LENGTH:
        return text
    begin = max(0, min(at - 40, len(text) - EVIDENCE_LENGTH + 3))
    piece = text[begin : begin + EVIDENCE_LENGTH - 6]
    return f"{'...' if begin else ''}{piece}{'...' if begin + len(piece) < len(text) else ''}"
