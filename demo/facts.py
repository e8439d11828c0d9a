"""What the assistant knows: facts read from the data files, and their checks."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KINDS = ("failure", "concept", "board", "command", "howto", "talk")
GROUP = re.compile(r"\(([^()]*\|[^()]*)\)")


@dataclass(frozen=True)
class Fact:
    """One answer and the ways to ask for it. `ask` and `held_out` may hold (a|b) alternatives.

    `id` of a remedy is the failure's id followed by `.fix`; it is asked by `ask` and by follow-ups.
    """

    id: str
    kind: str
    answer: str
    names: tuple[str, ...]
    logs: tuple[str, ...]
    ask: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def is_fix(self) -> bool:
        return self.id.endswith(".fix")


def read_yaml(path: Path) -> Any:
    """A data file; by libyaml where it is there, which is ten times faster."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text("utf-8"), Loader=loader)


def expand(pattern: str) -> list[str]:
    """Every reading of a pattern with (a|b) alternatives."""
    parts = GROUP.split(pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return [" ".join("".join(pick).split()) for pick in itertools.product(*choices)]


def normalise(text: str) -> str:
    """Lower case, words only: two questions that differ in noise alone become equal."""
    return " ".join(re.findall(r"[a-z0-9_]+", text.lower()))


def _facts_of(entry: dict[str, Any]) -> list[Fact]:
    names, logs = tuple(entry.get("names", ())), tuple(entry.get("logs", ()))
    ask, held_out = tuple(entry["ask"]), tuple(entry["held_out"])
    fact = Fact(entry["id"], entry["kind"], entry["answer"], names, logs, ask, held_out)
    if "remedy" not in entry:
        return [fact]
    ask, held_out = tuple(entry["fix_ask"]), tuple(entry["fix_held_out"])
    return [fact, Fact(entry["id"] + ".fix", "failure", entry["remedy"], names, logs, ask, held_out)]


def _check(facts: list[Fact]) -> None:
    seen: set[str] = set()
    for fact in facts:
        if fact.id in seen or fact.kind not in KINDS:
            raise ValueError(f"{fact.id}: duplicate id or unknown kind {fact.kind}")
        if not fact.answer.isascii() or len(fact.held_out) < 2:
            raise ValueError(f"{fact.id}: needs an ASCII answer and two held-out phrasings")
        seen.add(fact.id)


def load_facts(directory: Path = HERE / "facts") -> list[Fact]:
    """All facts in file order; a failure is followed by its remedy."""
    files = sorted(directory.glob("*.yaml"))
    entries = [entry for file in files for entry in read_yaml(file)]
    facts = [fact for entry in entries for fact in _facts_of(entry)]
    _check(facts)
    return facts


def load_phrases(path: Path = HERE / "phrases.yaml") -> dict[str, Any]:
    """The wordings shared by all facts."""
    phrases: dict[str, Any] = read_yaml(path)
    return phrases


def held_out_questions(facts: list[Fact], phrases: dict[str, Any]) -> set[str]:
    """Normalised questions, of facts and follow-ups, that training must never see."""
    whole = {normalise(q) for fact in facts for p in fact.held_out for q in expand(p)}
    return whole | {normalise(q) for key in ("follow_up", "why_back") for q in phrases[key]["held_out"]}
