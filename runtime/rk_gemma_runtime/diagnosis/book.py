"""The rule book: read from rules/*.yaml, checked as a whole.

A line pattern is found by a plain text in it (`has`, lower case) and held against a regex (`re`) if it has one; a
line that `unless` is found in is left out.
`signal` and `words` stand for what logs say of a signal. A rule names lines and conditions on values. What a file
gets wrong is a ValueError that names the entry.
"""

from __future__ import annotations

import functools
import re
import string
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from rk_gemma_runtime.diagnosis.conditions import Condition, read_conditions
from rk_gemma_runtime.diagnosis.signals import signal_pattern, word_pattern

CAUSES = (
    "npu_malloc_iova_exhausted",
    "npu_malloc_no_ram",
    "fd_limit",
    "driver_too_old",
    "driver_missing",
    "permission",
    "iommu_disabled",
    "model_magic_mismatch",
    "model_version_mismatch",
    "manifest_mismatch",
    "platform_mismatch",
    "unknown_platform",
    "unsupported_model",
    "context_too_long",
    "missing_tokenizer",
    "cpu_mask_mismatch",
    "npu_run_failed",
    "kernel_job_timeout",
    "kernel_oops",
    "kernel_hang",
    "power_domain",
    "missing_shared_library",
    "glibc_too_old",
    "illegal_instruction",
    "segfault",
    "api_misuse",
    "rknn_server",
    "oom_killed",
    "garbage_output",
    "toolkit_unsupported_model",
    "toolkit_unsupported_dtype",
    "toolkit_bad_checkpoint",
    "toolkit_bad_environment",
    "toolkit_out_of_memory",
    "unsupported_operator",
    "ok",
    "other",
)
# How a line counts: it accuses; it is normal; it shows a load or a run that went well; or it is an error line that
# is told only if no other pattern explains it.
ROLES = ("accuses", "harmless", "healthy", "rest")
# A cause is why; a symptom is what came of it, and ranks below; health is asked only if nothing accuses.
KINDS = ("cause", "symptom", "health")
SHORTEST_NEEDLE = 4


@dataclass(frozen=True)
class Pattern:
    """A line as it may occur in a log. `needles` are lower case; `regex` is held against the line without its prefix
    if `bare`, else against the whole. A line that `unless` is found in is not meant."""

    name: str
    needles: tuple[str, ...]
    regex: re.Pattern[str]
    bare: bool
    role: str
    example: str
    unless: re.Pattern[str] | None = None

    def search(self, text: str, body: str) -> re.Match[str] | None:
        """Look into a line; `body` is the line without its prefix."""
        if self.unless is not None and self.unless.search(text):
            return None
        return self.regex.search(body if self.bare else text)


@dataclass(frozen=True)
class Rule:
    """Lines (names of patterns) and conditions, and what they mean together. `shows` are lines that are quoted
    too where they are there."""

    id: str
    cause: str
    kind: str
    confidence: float
    any: tuple[str, ...]
    all: tuple[str, ...]
    none: tuple[str, ...]
    shows: tuple[str, ...]
    when: tuple[Condition, ...]
    rules_out: tuple[str, ...]
    explanation: tuple[str, ...]
    remedy: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Cause:
    """What the page says about a cause before its rules."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Book:
    """Everything, in the order of the files."""

    causes: tuple[Cause, ...]
    patterns: tuple[Pattern, ...]
    rules: tuple[Rule, ...]


@functools.cache
def the_book() -> Book:
    """Return the book that ships with the package; read once."""
    folder = resources.files("rk_gemma_runtime.diagnosis").joinpath("rules")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return read_book([yaml.load(f.read_text(encoding="utf-8"), Loader=loader) for f in files])


def read_book(trees: list[dict[str, Any]]) -> Book:
    """Read a book from the contents of some files. Raises ValueError with one line."""
    causes, patterns, rules = [], [], []
    for tree in trees:
        causes += [_cause(name, entry) for name, entry in (tree.get("causes") or {}).items()]
        patterns += [_pattern(name, entry) for name, entry in (tree.get("lines") or {}).items()]
        rules += [_rule(entry) for entry in tree.get("rules") or []]
    causes.sort(key=lambda cause: CAUSES.index(cause.id))
    book = Book(tuple(causes), tuple(patterns), tuple(rules))
    _check(book)
    return book


def _cause(name: str, entry: dict[str, Any]) -> Cause:
    if name not in CAUSES:
        raise ValueError(f"cause {name}: not one of CAUSES")
    return Cause(name, entry["title"], " ".join(entry["text"].split()))


def _pattern(name: str, entry: Any) -> Pattern:
    entry = entry if isinstance(entry, dict) else {"has": entry}
    unknown = set(entry) - {"has", "re", "role", "example", "signal", "words", "unless"}
    if unknown:
        raise ValueError(f"line {name}: unknown keys {sorted(unknown)}")
    needles, text = _texts_and_regex(entry)
    try:
        regex = re.compile(text, re.IGNORECASE)
        unless = re.compile(entry["unless"], re.IGNORECASE) if "unless" in entry else None
    except re.error as error:
        raise ValueError(f"line {name}: {error}") from error
    if entry.get("role", "accuses") not in ROLES or any(
        len(n.strip(string.digits).encode()) < SHORTEST_NEEDLE or n != n.lower() for n in needles
    ):
        raise ValueError(f"line {name}: a bad role, or a text that is short or not lower case")
    example = entry.get("example") or (entry.get("words") or needles)[0]
    return Pattern(name, needles, regex, text.startswith("^"), entry.get("role", "accuses"), example, unless)


def _texts_and_regex(entry: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return what finds a line: its own texts and regex, and those of its signal or its words."""
    needles = _texts(entry.get("has"))
    forms = [entry.get("re") or "|".join(map(re.escape, needles))] if needles else []
    if "words" in entry:
        found, form = word_pattern(entry["words"])
        needles, forms = (*needles, *found), [form, *forms]
    for number in entry.get("signal", ()):
        found, form = signal_pattern(number)
        needles, forms = (*needles, *found), [*forms, form]
    return tuple(dict.fromkeys(needles)), "|".join(forms)


def _rule(entry: dict[str, Any]) -> Rule:
    known = {"id", "cause", "kind", "confidence", "any", "all", "none", "shows", "when", "rules_out", "explanation",
             "remedy", "source"}  # fmt: skip
    if set(entry) - known:
        raise ValueError(f"rule {entry.get('id')}: unknown keys {sorted(set(entry) - known)}")
    return Rule(
        entry["id"],
        entry["cause"],
        entry.get("kind", "cause"),
        float(entry["confidence"]),
        _texts(entry.get("any")),
        _texts(entry.get("all")),
        _texts(entry.get("none")),
        _texts(entry.get("shows")),
        read_conditions(entry["id"], entry.get("when") or {}),
        _texts(entry.get("rules_out")),
        _texts(entry["explanation"]),
        _texts(entry["remedy"]),
        entry["source"],
    )


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _check(book: Book) -> None:
    names = [pattern.name for pattern in book.patterns]
    ids = [rule.id for rule in book.rules]
    for what, words in (("line", names), ("rule", ids)):
        twice = {word for word in words if words.count(word) > 1}
        if twice:
            raise ValueError(f"{what} {min(twice)}: twice in the book")
    for pattern in book.patterns:
        if not pattern.search(pattern.example, pattern.example) or not any(
            n in pattern.example.lower() for n in pattern.needles
        ):
            raise ValueError(f"line {pattern.name}: its own example does not match")
    for rule in book.rules:
        _check_rule(rule, frozenset(names))


def _check_rule(rule: Rule, names: frozenset[str]) -> None:
    missing = {*rule.any, *rule.all, *rule.none, *rule.shows} - names
    if missing:
        raise ValueError(f"rule {rule.id}: there is no line {min(missing)}")
    if rule.cause not in CAUSES or set(rule.rules_out) - set(CAUSES) or rule.kind not in KINDS:
        raise ValueError(f"rule {rule.id}: an unknown cause or kind")
    if not 0 <= rule.confidence <= 1 or not (rule.any or rule.all or rule.when):
        raise ValueError(f"rule {rule.id}: a confidence outside 0..1, or nothing that it asks for")
    if not all(sentence.rstrip().endswith(".") for sentence in (*rule.explanation, *rule.remedy)):
        raise ValueError(f"rule {rule.id}: a sentence without its full stop (YAML cuts unquoted ones at a comma)")
    if placeholders(rule.explanation[0]) or placeholders(rule.remedy[0]):
        raise ValueError(f"rule {rule.id}: the first sentence must be sayable without any value")


def placeholders(sentence: str) -> tuple[str, ...]:
    """Find the names in braces."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None)
