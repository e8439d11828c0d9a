"""The words that point to a fact, and questions made of little else.

People word a question in more ways than anybody writes down; what they share is the telling words. A question
of telling words in any order, between filler, teaches the model to listen to those.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from demo.facts import HERE, Fact, expand, normalise, read_yaml

if TYPE_CHECKING:
    import random
    from pathlib import Path

TRIES = 12
MARGIN = 1.0


def load_words(path: Path = HERE / "words.yaml") -> dict[str, str]:
    words: dict[str, Any] = read_yaml(path)
    return {fact: str(text) for fact, text in words.items()}


def topic(fact: Fact) -> str:
    """A failure and its remedy share their words."""
    return fact.id.removesuffix(".fix")


class Lexicon:
    """How often each word is said about each topic, and draws from that."""

    def __init__(self, facts: list[Fact], phrases: dict[str, Any]) -> None:
        self._filler: list[str] = phrases["filler"]
        self._remedy: list[str] = phrases["remedy_words"]
        self._meaning: list[str] = phrases["meaning_words"]
        ignored = set(phrases["stopwords"]) | set(" ".join(self._filler).split())
        self._counts = self._count(facts, ignored)
        totals = Counter(word for counts in self._counts.values() for word in counts)
        self._draws = {t: self._weigh(counts, totals) for t, counts in self._counts.items()}

    @staticmethod
    def _count(facts: list[Fact], ignored: set[str]) -> dict[str, Counter[str]]:
        counts = {topic(fact): Counter[str]() for fact in facts}
        for fact in facts:
            said = [q for pattern in fact.ask for q in expand(pattern)] + list(fact.names) * 2 + [fact.answer]
            counts[topic(fact)].update(w for q in said for w in normalise(q).split() if w not in ignored)
        for name, words in load_words().items():
            counts[name].update(3 * [w for w in words.lower().split() if w not in ignored])
        return counts

    def _weigh(self, counts: Counter[str], totals: Counter[str]) -> tuple[list[str], list[float]]:
        """Words of a topic and how willingly to draw them: often said here, seldom elsewhere."""
        words = sorted(counts)
        rare = [math.log(1 + len(self._counts) / totals[word]) for word in words]
        return words, [math.sqrt(counts[word]) * r * r for word, r in zip(words, rare, strict=True)]

    def _score(self, name: str, words: list[str]) -> float:
        counts = self._counts[name]
        size = sum(counts.values()) + 20
        return sum(math.log((counts[word] + 0.02) / size) for word in words)

    def _points_to(self, name: str, words: list[str]) -> bool:
        """Whether the words tell this topic clearly from every other."""
        best = max(self._score(other, words) for other in self._counts if other != name)
        return self._score(name, words) >= best + MARGIN

    def question(self, fact: Fact, rng: random.Random) -> str | None:
        """Telling words in any order between filler; None where the words found tell too little."""
        words, weights = self._draws[topic(fact)]
        for _ in range(TRIES):
            drawn = list(dict.fromkeys(rng.choices(words, weights, k=rng.choice((1, 2, 2, 3, 3, 4)))))
            if self._points_to(topic(fact), drawn):
                return self._dress(fact, drawn, rng)
        return None

    def _dress(self, fact: Fact, drawn: list[str], rng: random.Random) -> str:
        for _ in range(rng.randrange(6)):
            drawn.insert(rng.randrange(len(drawn) + 1), rng.choice(self._filler))
        text = " ".join(drawn)
        if fact.is_fix:
            return self._mark(text, self._remedy, rng)
        if fact.kind == "failure" and rng.random() < 0.6:
            return self._mark(text, self._meaning, rng)
        return text

    @staticmethod
    def _mark(text: str, marks: list[str], rng: random.Random) -> str:
        mark = rng.choice(marks)
        return rng.choice((f"{mark} {text}", f"{text} {mark}", f"{text}, {mark}"))
