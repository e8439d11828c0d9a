"""Rules and readings to verdicts, most likely first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.diagnosis.book import CAUSES, Book, Rule, placeholders, the_book
from rk_gemma_runtime.diagnosis.matching import KEPT_HITS, Hit, Matcher, Matches
from rk_gemma_runtime.diagnosis.readings import LogFacts, Readings
from rk_gemma_runtime.diagnosis.scan import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO

    from rk_gemma_runtime.board.facts import Board

# From here on a cause outranks every symptom, however sure the symptom is.
CAUSE_BEFORE_SYMPTOM = 0.4
LIKELY = 0.5
MOST_LOADS = 20  # of one log that are looked at by themselves
NOTHING_FOUND = (
    "No line of the NPU stack (librkllmrt, librknnrt, the rknpu driver, rkllm-toolkit) was found, and nothing that"
    " names a crash."
)
NOTHING_KNOWN = (
    "There are lines of the NPU stack, and none of them says that something failed or that something worked."
)
LOOK_FURTHER = (
    "Give the whole output of the program, with stderr (`program 2>&1 | rk-gemma explain -`), and the kernel log"
    " (`sudo dmesg | rk-gemma explain -`)."
)


@dataclass(frozen=True)
class Evidence:
    """A line of the input: its number from 1 on, and at most 300 characters of its text."""

    line: int
    text: str


@dataclass(frozen=True)
class Verdict:
    """A cause and how sure it is (0 to 1), the lines that say so (at most 8; none where a signal or the board says
    it), what it means, what to do, where that was established, and the rule's id."""

    cause: str
    confidence: float
    evidence: tuple[Evidence, ...]
    explanation: str
    remedy: str
    source: str
    rule: str

    def tree(self) -> dict[str, Any]:
        """Return the keys of `explain --json`."""
        evidence = [{"line": e.line, "text": e.text} for e in self.evidence]
        return {
            "cause": self.cause,
            "confidence": self.confidence,
            "evidence": evidence,
            "explanation": self.explanation,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Diagnosis:
    """The first verdict, the others, and the values of the log."""

    first: Verdict
    others: tuple[Verdict, ...]
    facts: LogFacts

    @property
    def cause(self) -> str:
        """The first verdict's."""
        return self.first.cause

    @property
    def confidence(self) -> float:
        """The first verdict's."""
        return self.first.confidence

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The first verdict's."""
        return self.first.evidence

    @property
    def explanation(self) -> str:
        """The first verdict's."""
        return self.first.explanation

    @property
    def remedy(self) -> str:
        """The first verdict's."""
        return self.first.remedy

    def tree(self) -> dict[str, Any]:
        """Return what `explain --json` prints."""
        return {**self.first.tree(), "others": [v.tree() for v in self.others], "facts": self.facts.tree()}


@dataclass(frozen=True)
class Examination:
    """A diagnosis, and what the input was: its size in bytes, whether it held nothing but blanks, whether it looks
    like no text at all, and whether any line in it was known."""

    diagnosis: Diagnosis
    size: int
    blank: bool
    binary: bool
    known_lines: bool


def diagnose(
    lines: Iterable[str],
    *,
    signal: int | None = None,
    board: Board | None = None,
    known: Mapping[str, object] | None = None,
) -> Diagnosis:
    """Find why it failed. `signal` ended the process; `known` are values from elsewhere, named as in LogFacts. A
    log's own values count first, then `known`, then the board."""
    return examine(_chunks(lines), signal=signal, board=board, known=known).diagnosis


def diagnose_stream(
    file: BinaryIO,
    *,
    signal: int | None = None,
    board: Board | None = None,
    known: Mapping[str, object] | None = None,
) -> Diagnosis:
    """Diagnose any bytes in linear time and bounded memory. Blocks as `file` does. Raises OSError of reading it."""
    return examine(iter(partial(file.read, CHUNK), b""), signal=signal, board=board, known=known).diagnosis


def examine(
    chunks: Iterable[bytes],
    *,
    signal: int | None = None,
    board: Board | None = None,
    known: Mapping[str, object] | None = None,
) -> Examination:
    """Diagnose chunks of bytes, of any size."""
    book = the_book()
    matcher = Matcher(book.patterns, Readings(known or {}, board, signal))
    matches = matcher.run(chunks)
    verdicts = _ranked(book, matches)
    first = verdicts[0] if verdicts else _nothing(matches)
    line = first.evidence[0].line if first.evidence else None
    scanner = matcher.scanner
    return Examination(
        Diagnosis(first, tuple(verdicts[1:]), matches.readings.facts(line)),
        scanner.size,
        scanner.blank,
        scanner.looks_binary,
        bool(matches.hits) or matches.stack_line is not None,
    )


def _chunks(lines: Iterable[str]) -> Iterator[bytes]:
    """Turn lines into chunks of bytes; a line break inside a line does not make two of it."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        raw = line.rstrip("\r\n").replace("\n", "\r").encode("utf-8", errors="replace") + b"\n"
        block.append(raw)
        size += len(raw)
        if size >= CHUNK:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)


def _ranked(book: Book, matches: Matches) -> list[Verdict]:
    fired = _fired(book, matches)
    # Of several loads in one log each may fail in its own way; what the whole log shows comes first.
    told = {rule.cause for rule, _ in fired}
    for load in _loads(matches):
        more = [(r, hits) for r, hits in _fired(book, load) if r.kind == "cause" and r.confidence >= LIKELY]
        fired += [(rule, hits) for rule, hits in more if rule.cause not in told]
    return _merged(fired, matches)


def _loads(matches: Matches) -> Iterator[Matches]:
    """Return what each load met by itself, if the log holds several: a load begins with the runtime's banner."""
    starts = matches.readings.lines("runtime_version")[1:MOST_LOADS]
    for begin, end in zip([0, *starts], [*starts, 1 << 62], strict=True) if starts else ():
        hits = {name: [h for h in found if begin <= h.number < end] for name, found in matches.hits.items()}
        yield Matches(matches.readings, {name: found for name, found in hits.items() if found})


def _fired(book: Book, matches: Matches) -> list[tuple[Rule, list[Hit]]]:
    """Find the rules that hold and their lines, the most likely first."""
    fired = [(rule, hits) for rule in book.rules if (hits := _fires(rule, matches)) is not None]
    if any(rule.kind != "health" for rule, _ in fired):
        fired = [(rule, hits) for rule, hits in fired if rule.kind != "health"]
    out = {cause for rule, _ in fired for cause in rule.rules_out}
    fired = [(rule, hits) for rule, hits in fired if rule.cause not in out]
    strong = any(rule.kind == "cause" and rule.confidence >= CAUSE_BEFORE_SYMPTOM for rule, _ in fired)
    if strong:  # what is explained need not be called unexplained
        fired = [(rule, hits) for rule, hits in fired if (rule.cause, rule.kind) != ("other", "symptom")]
    return sorted(fired, key=lambda pair: _rank(pair[0], pair[1], strong))


def _rank(rule: Rule, hits: list[Hit], strong: bool) -> tuple[bool, float, int, int]:
    below = strong and rule.kind == "symptom"
    return (below, -rule.confidence, hits[0].number if hits else 1 << 62, CAUSES.index(rule.cause))


def _fires(rule: Rule, matches: Matches) -> list[Hit] | None:
    """Return the lines by which a rule holds, in order; None if it does not."""
    hits = matches.hits
    if any(name in hits for name in rule.none) or not all(name in hits for name in rule.all):
        return None
    anchors = [hit for name in rule.any for hit in hits.get(name, ())]
    if rule.any and not anchors:
        return None
    anchors = _sorted(anchors or [hit for name in rule.all for hit in hits[name]])
    if not anchors:
        return [] if _holds(rule, matches.readings, None) else None
    good = [hit for hit in anchors if _holds(rule, matches.readings, hit.number)]
    if not good:
        return None
    # `all` lines stand beside: they count as evidence, and the values are asked for where the anchors stand.
    return _sorted([*good, *(hit for name in rule.all for hit in hits[name] if rule.any)])


def _holds(rule: Rule, readings: Readings, line: int | None) -> bool:
    return all(condition.holds(lambda name: readings.value(name, line)) for condition in rule.when)


def _sorted(hits: list[Hit]) -> list[Hit]:
    return sorted(dict.fromkeys(hits), key=lambda hit: hit.number)


def _merged(fired: list[tuple[Rule, list[Hit]]], matches: Matches) -> list[Verdict]:
    """Merge verdicts: one for each cause, with the best rule's words and the lines of all."""
    best: dict[str, tuple[Rule, list[Hit]]] = {}
    lines: dict[str, list[Hit]] = {}
    for rule, hits in fired:
        best.setdefault(rule.cause, (rule, hits))
        beside = [hit for name in rule.shows for hit in matches.hits.get(name, ())]
        lines.setdefault(rule.cause, []).extend([*hits, *beside])
    return [_verdict(rule, hits, lines[cause], matches.readings) for cause, (rule, hits) in best.items()]


def _verdict(rule: Rule, hits: list[Hit], lines: list[Hit], readings: Readings) -> Verdict:
    words = readings.words(hits[0].number if hits else None)
    for hit in reversed(hits):
        words |= dict(hit.groups)
    shown: dict[int, str] = {}
    for hit in sorted(lines, key=lambda hit: hit.number):
        shown.setdefault(hit.number, hit.text)
    evidence = tuple(Evidence(number, text) for number, text in list(shown.items())[:KEPT_HITS])
    explanation, remedy = _fill_in(rule.explanation, words), _fill_in(rule.remedy, words)
    return Verdict(rule.cause, rule.confidence, evidence, explanation, remedy, rule.source, rule.id)


def _fill_in(sentences: tuple[str, ...], words: dict[str, str]) -> str:
    """Fill in the sentences all of whose placeholders have a value."""
    sayable = [s for s in sentences if all(name in words for name in placeholders(s))]
    return " ".join(" ".join(s.format_map(words).split()) for s in sayable)


def _nothing(matches: Matches) -> Verdict:
    line = matches.stack_line
    if line is None:
        return Verdict("other", 0.0, (), NOTHING_FOUND, LOOK_FURTHER, "", "nothing_found")
    evidence = (Evidence(line.number, line.text),)
    return Verdict("other", 0.1, evidence, NOTHING_KNOWN, LOOK_FURTHER, "", "nothing_known")
