"""How well the demo answers: `python -m demo.evaluate`.

Held-out phrasings, alone and at the end of held-out conversations, are answered greedily. An answer is right
when it is the expected fact's text (similarity at least 0.8) and no other fact's text is nearer.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from demo.corpus import HELD_OUT, Conversation, multi_questions, single_questions
from demo.facts import load_facts
from demo.tokenizer import CHECKPOINT

AnswerFn = Callable[[Conversation], str]
THRESHOLD = 0.8
MAX_TOKENS = 96


@dataclass(frozen=True)
class Question:
    """The conversation up to a held-out question, the fact that answers it, and the other facts' answers."""

    messages: Conversation
    fact: str
    expected: str
    others: tuple[str, ...]

    @property
    def turns(self) -> int:
        return (len(self.messages) + 1) // 2


@runtime_checkable
class ManyAnswers(Protocol):
    """An answerer that is much faster when it gets all conversations at once."""

    def answer_all(self, talks: list[Conversation]) -> list[str]: ...


def load_questions() -> list[Question]:
    """Single-turn questions first, then the multi-turn ones."""
    facts = load_facts()
    asked = [*single_questions(facts), *multi_questions()]
    others = {fact.id: tuple(f.answer for f in facts if f.id != fact.id) for fact in facts}
    return [Question(said, fact.id, fact.answer, others[fact.id]) for said, fact in asked]


def similarity(a: str, b: str) -> float:
    """Share of common words in order, 0 to 1."""
    return difflib.SequenceMatcher(None, a.split(), b.split(), autojunk=False).ratio()


def judge(answer: str, question: Question) -> bool:
    """Whether the answer is the expected fact's text and no other fact's text is nearer."""
    score = similarity(answer, question.expected)
    return score >= THRESHOLD and all(similarity(answer, other) <= score for other in question.others)


def accuracy(answer_fn: AnswerFn, questions: list[Question]) -> float:
    """Share of the questions answered right, 0 to 1."""
    return sum(verdicts(answer_fn, questions)) / len(questions)


def verdicts(answer_fn: AnswerFn, questions: list[Question]) -> list[bool]:
    """For each question whether it was answered right."""
    return [judge(a, q) for a, q in zip(answers(answer_fn, questions), questions, strict=True)]


def answers(answer_fn: AnswerFn, questions: list[Question]) -> list[str]:
    if isinstance(answer_fn, ManyAnswers):
        return answer_fn.answer_all([q.messages for q in questions])
    return [answer_fn(q.messages) for q in questions]


def transformers_answerer(checkpoint: Path = CHECKPOINT, fake_w8a8: bool = False) -> AnswerFn:
    """Answers by transformers in fp32, or in simulated w8a8."""
    from demo.reference import Reference

    return Reference(checkpoint, MAX_TOKENS, fake_w8a8)


class RuntimeAnswerer:
    """Answers by the product's own runtime. Owns a worker process: close it."""

    def __init__(self, bundle: Path, backend: str = "npu") -> None:
        runtime: Any = importlib.import_module("rk_gemma_runtime")
        self._assistant = runtime.Assistant.open(bundle, backend=backend)

    def __call__(self, messages: Conversation) -> str:
        return "".join(self._assistant.chat(messages, temperature=0, max_tokens=MAX_TOKENS)).strip()

    def close(self) -> None:
        """End the worker."""
        self._assistant.close()


def load_held_out(path: Path = HELD_OUT) -> list[Conversation]:
    """The whole held-out conversations, one per line of the file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def report(answer_fn: AnswerFn, questions: list[Question]) -> dict[str, Any]:
    """Accuracy for single turns, several turns and all, and every miss."""
    given = answers(answer_fn, questions)
    right = [judge(answer, question) for answer, question in zip(given, questions, strict=True)]
    singles = [ok for ok, question in zip(right, questions, strict=True) if question.turns == 1]
    multis = [ok for ok, question in zip(right, questions, strict=True) if question.turns > 1]
    misses = [
        {"fact": q.fact, "turns": q.turns, "asked": q.messages[-1]["content"], "answer": answer}
        for ok, answer, q in zip(right, given, questions, strict=True)
        if not ok
    ]
    return {
        "single_turn": {"right": sum(singles), "of": len(singles)},
        "multi_turn": {"right": sum(multis), "of": len(multis)},
        "accuracy": sum(right) / len(right),
        "misses": misses,
    }


def print_table(result: dict[str, Any], show_misses: bool) -> None:
    for name in ("single_turn", "multi_turn"):
        right, of = result[name]["right"], result[name]["of"]
        print(f"{name:12} {right:4} of {of:4}  {100 * right / of:5.1f} %")
    print(f"{'all':12} {100 * result['accuracy']:20.1f} %")
    for key, value in result.get("w8a8_closeness", {}).items():
        print(f"w8a8 {key}: {value:.5f}")
    for miss in result["misses"] if show_misses else ():
        print(f"- {miss['fact']} ({miss['turns']}): {miss['asked']!r} -> {miss['answer']!r}")


def configure_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--bundle", type=Path, help="ask the product's runtime with this bundle instead")
    parser.add_argument("--backend", default="npu", help="backend of the runtime")
    parser.add_argument("--fake-w8a8", action="store_true", help="simulate w8a8 and compare with fp32")
    parser.add_argument("--misses", action="store_true", help="list the wrong answers")
    parser.add_argument("--json", action="store_true")
    return parser


def main() -> None:
    args = configure_parser().parse_args()
    if args.bundle:
        answer_fn: AnswerFn = RuntimeAnswerer(args.bundle, args.backend)
    else:
        answer_fn = transformers_answerer(args.checkpoint, args.fake_w8a8)
    result = report(answer_fn, load_questions())
    if args.fake_w8a8 and not args.bundle:
        from demo.reference import closeness

        result["w8a8_closeness"] = closeness(args.checkpoint, load_held_out())
    print(json.dumps(result, indent=1)) if args.json else print_table(result, args.misses)


if __name__ == "__main__":
    main()
