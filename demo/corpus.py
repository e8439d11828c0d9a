"""Conversations to train on and conversations kept apart; `python -m demo.corpus` prints some.

Everything is drawn from `random.Random(seed)`: a seed names one stream of conversations for good.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
from typing import TYPE_CHECKING, Any

from demo.facts import HERE, Fact, expand, load_facts, load_phrases
from demo.phrasing import Speaker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Message = dict[str, str]
Conversation = list[Message]
HELD_OUT = HERE / "heldout.jsonl"
TURNS = (1,) * 9 + (2,) * 5 + (3,) * 3 + (4, 5, 6, 8, 10)


def _turn(question: str, answer: str) -> Conversation:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class Corpus:
    """An endless stream of training conversations."""

    def __init__(self, seed: int) -> None:
        self.facts = load_facts()
        self.phrases = load_phrases()
        self.speaker = Speaker(self.facts, self.phrases)
        self._by_id = {fact.id: fact for fact in self.facts}
        self._rng = random.Random(seed)

    def __iter__(self) -> Iterator[Conversation]:
        while True:
            yield self.conversation()

    def conversation(self) -> Conversation:
        """One conversation of one to ten turns."""
        rng = self._rng
        said: Conversation = []
        previous: Fact | None = None
        for _ in range(rng.choice(TURNS)):
            question, previous = self._next(previous)
            said += _turn(question, previous.answer)
        if rng.random() < 0.06:
            said[0]["content"] = f"{self.speaker.system(rng)}\n\n{said[0]['content']}"
        return said

    def _next(self, previous: Fact | None) -> tuple[str, Fact]:
        """A question and its fact, often one that leans on the fact before."""
        rng = self._rng
        if previous is not None:
            fix = self._by_id.get(previous.id + ".fix")
            if fix is not None and rng.random() < 0.5:
                return self.speaker.follow_up("follow_up", rng), fix
            if previous.kind != "talk" and rng.random() < 0.08:
                return self.speaker.follow_up("why_back", rng), previous
        fact = rng.choice(self.facts)
        return self.speaker.question(fact, rng), fact


def single_questions(facts: list[Fact]) -> list[tuple[Conversation, Fact]]:
    """Every held-out phrasing, asked alone."""
    return [
        ([{"role": "user", "content": _written(question)}], fact)
        for fact in facts
        for pattern in fact.held_out
        for question in expand(pattern)
    ]


def _written(question: str) -> str:
    """A question as people type it: some with a capital and a mark, some without (by its length)."""
    return question[:1].upper() + question[1:] + "?" if len(question) % 2 else question


def multi_questions(seed: int = 7, count: int = 150) -> list[tuple[Conversation, Fact]]:
    """Conversations of two to five turns out of held-out phrasings; the last question is the asked one."""
    facts, phrases, rng = load_facts(), load_phrases(), random.Random(seed)
    by_id = {fact.id: fact for fact in facts}
    return [_held_out_conversation(rng, facts, by_id, phrases) for _ in range(count)]


def _held_out_conversation(
    rng: random.Random, facts: list[Fact], by_id: dict[str, Fact], phrases: dict[str, Any]
) -> tuple[Conversation, Fact]:
    said: Conversation = []
    fact = rng.choice(facts)
    for turn in range(rng.randrange(2, 6)):
        fix = by_id.get(fact.id + ".fix") if turn else None
        if fix is not None and rng.random() < 0.7:
            fact, question = fix, rng.choice(phrases["follow_up"]["held_out"])
        elif turn and fact.kind != "talk" and rng.random() < 0.06:
            question = rng.choice(phrases["why_back"]["held_out"])
        else:
            fact = rng.choice(facts)
            question = rng.choice([q for pattern in fact.held_out for q in expand(pattern)])
        said += _turn(_written(question), fact.answer)
    return said[:-1], fact


def held_out_conversations() -> list[Conversation]:
    """Whole conversations, answers included: the text on which quantisation is judged."""
    singles = single_questions(load_facts())[::2]
    asked = [*singles, *multi_questions(seed=11, count=60)]
    return [[*said, {"role": "assistant", "content": fact.answer}] for said, fact in asked]


def digest(seed: int, count: int) -> str:
    """sha256 of the first conversations of a seed."""
    head = itertools.islice(Corpus(seed), count)
    return hashlib.sha256(json.dumps(list(head), sort_keys=True).encode()).hexdigest()


def write_held_out(path: Path = HELD_OUT) -> None:
    """Write the held-out conversations, one JSON list of messages per line."""
    path.write_text("".join(json.dumps(said) + "\n" for said in held_out_conversations()), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=5, help="conversations to print")
    parser.add_argument("--write-held-out", action="store_true", help="write demo/heldout.jsonl and stop")
    args = parser.parse_args()
    if args.write_held_out:
        write_held_out()
        return
    for said in itertools.islice(Corpus(args.seed), args.count):
        print(json.dumps(said))


if __name__ == "__main__":
    main()
