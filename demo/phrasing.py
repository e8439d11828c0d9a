"""Ways to say a question: templates, synonyms, keyword forms, pasted logs, typing noise."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Any

from demo.facts import Fact, expand, held_out_questions, normalise
from demo.lexicon import Lexicon

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

TRIES = 50


def _fill(line: str, rng: random.Random) -> str:
    """Numbers for the placeholders of a log line."""
    size = rng.choice([rng.randrange(10**8, 10**9), rng.randrange(10**9, 4 * 10**9), 4022272000, 232128512])
    clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}.{rng.randrange(1000):03}"
    values = {
        "{size}": str(size),
        "{time}": clock,
        "{n}": str(rng.randrange(1, 6000)),
        "{ctx}": str(rng.choice([8192, 16384, 32768, 6144])),
        "{addr}": f"{rng.randrange(2**32):08x}",
    }
    return re.sub(r"\{\w+\}", lambda match: values.get(match.group(), match.group()), line)


def _typo(text: str, rng: random.Random) -> str:
    """One slip of the finger inside a word."""
    spots = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not spots:
        return text
    i = rng.choice(spots)
    slips = (
        text[:i] + text[i + 1 :],
        text[:i] + text[i] + text[i:],
        text[: i - 1] + text[i] + text[i - 1] + text[i + 1 :],
        text[:i] + rng.choice(string.ascii_lowercase) + text[i + 1 :],
    )
    return rng.choice(slips)


def _case(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.42:
        return text[:1].upper() + text[1:]
    if roll < 0.80:
        return text
    if roll < 0.94:
        return text.lower()
    return text.upper() if roll < 0.97 else text.title()


class Speaker:
    """Says questions at random, never one that is held out.

    All chance comes from the `rng` handed in, so equal seeds say equal things.
    """

    def __init__(self, facts: list[Fact], phrases: dict[str, Any]) -> None:
        self._phrases = phrases
        self._lexicon = Lexicon(facts, phrases)
        self._stop = frozenset(phrases["stopwords"])
        self._forbidden = tuple(f" {q} " for q in sorted(held_out_questions(facts, phrases)))
        self._asks = {fact.id: [q for pattern in fact.ask for q in expand(pattern)] for fact in facts}

    def allowed(self, text: str) -> bool:
        """Whether no held-out question occurs in the text, as the whole or as a part."""
        plain = f" {normalise(text)} "
        return not any(question in plain for question in self._forbidden)

    def question(self, fact: Fact, rng: random.Random) -> str:
        """One training question for the fact."""
        return self._until_allowed(lambda: self._question(fact, rng))

    def follow_up(self, key: str, rng: random.Random) -> str:
        """A question that leans on the turn before: `follow_up` (what to do) or `why_back` (say again)."""
        return self._until_allowed(lambda: self._noise(rng.choice(self._phrases[key]["train"]), rng, 0.3))

    def system(self, rng: random.Random) -> str:
        choice: str = rng.choice(self._phrases["systems"])
        return choice

    def _until_allowed(self, say: Callable[[], str]) -> str:
        for _ in range(TRIES):
            text = say()
            if self.allowed(text):
                return text
        raise ValueError("the training wordings are too close to the held-out ones")

    def _question(self, fact: Fact, rng: random.Random) -> str:
        roll = rng.random()
        if fact.logs and roll < 0.14:
            templates = self._phrases["fix_log_templates" if fact.is_fix else "log_templates"]
            return str(rng.choice(templates)).replace("@", _fill(rng.choice(fact.logs), rng))
        templates = self._phrases["fix_templates"] if fact.is_fix else self._phrases["templates"][fact.kind]
        telling = self._lexicon.question(fact, rng) if roll < 0.45 else None
        if telling is not None:
            return self._noise(telling, rng, 0.1)
        if fact.names and templates and roll < 0.70:
            text = str(rng.choice(templates)).replace("@", rng.choice(fact.names))
        else:
            text = rng.choice(self._asks[fact.id])
            if rng.random() < 0.12:
                text += rng.choice((", ", " and ", " - ", ". ")) + rng.choice(self._asks[fact.id])
        return self._noise(self._reword(text, rng), rng)

    def _reword(self, text: str, rng: random.Random) -> str:
        """Swap synonyms, sometimes drop small words or mix their order."""
        synonyms = self._phrases["synonyms"]
        words = [rng.choice(synonyms[w]) if w in synonyms and rng.random() < 0.2 else w for w in text.split()]
        roll = rng.random()
        if roll < 0.12:
            words = [w for w in words if w not in self._stop] or words
        elif roll < 0.30 and len(words) > 3:
            small = [i for i, w in enumerate(words) if w in self._stop]
            words = [w for i, w in enumerate(words) if i not in small or rng.random() < 0.6] or words
        elif roll < 0.36 and len(words) > 3:
            cut = rng.randrange(1, len(words))
            words = words[cut:] + words[:cut]
        elif roll < 0.50:
            for _ in range(rng.randrange(1, 4)):
                words.insert(rng.randrange(len(words) + 1), rng.choice(self._phrases["filler"]))
        return " ".join(words)

    def _noise(self, text: str, rng: random.Random, wrap: float = 0.25) -> str:
        """Prefixes, suffixes, slips, case and punctuation."""
        if rng.random() < wrap:
            text = rng.choice(self._phrases["prefixes"]) + text
        if rng.random() < wrap * 0.6:
            text += rng.choice(self._phrases["suffixes"])
        for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2))):
            text = _typo(text, rng)
        text = _case(text, rng)
        return text + rng.choice(("?", "?", "?", "", "", "", ".", "!", "??", " ?"))
