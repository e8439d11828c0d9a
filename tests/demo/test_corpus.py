"""The demo's corpus: the same for ever, big enough, and apart from what it is judged by."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from demo.corpus import (
    HELD_OUT,
    Corpus,
    digest,
    held_out_conversations,
    multi_questions,
    single_questions,
)
from demo.evaluate import Question, judge, load_held_out, load_questions
from demo.facts import expand, held_out_questions, load_facts, load_phrases, normalise

ROOT = Path(__file__).parents[2]


def digest_in_new_process(hash_seed: str) -> str:
    code = "from demo.corpus import digest; print(digest(5, 300))"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env, text=True).strip()


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_names_one_corpus(hash_seed: str) -> None:
    assert digest_in_new_process(hash_seed) == digest(5, 300)


def test_another_seed_gives_other_conversations() -> None:
    assert digest(5, 20) != digest(6, 20)


def test_there_are_enough_facts_with_enough_wordings() -> None:
    facts, phrases = load_facts(), load_phrases()
    assert len([fact for fact in facts if not fact.is_fix]) >= 140
    for fact in facts:
        templates = phrases["fix_templates"] if fact.is_fix else phrases["templates"][fact.kind]
        written = sum(len(expand(pattern)) for pattern in fact.ask)
        assert written + len(templates) * bool(fact.names) >= 14, fact.id
        assert len({normalise(q) for pattern in fact.held_out for q in expand(pattern)}) >= 2, fact.id


def test_answers_are_short_and_differ() -> None:
    answers = [fact.answer for fact in load_facts()]
    assert len(set(answers)) == len(answers)
    assert max(len(answer.split()) for answer in answers) <= 40


def test_no_wording_asks_for_two_facts() -> None:
    asked = Counter(normalise(q) for fact in load_facts() for p in fact.ask for q in expand(p))
    assert [question for question, count in asked.items() if count > 1] == []


def test_held_out_questions_are_never_in_the_training_corpus() -> None:
    held_out = {f" {q} " for q in held_out_questions(load_facts(), load_phrases())}
    talks = itertools.islice(Corpus(1), 4000)
    said = {f" {normalise(m['content'])} " for talk in talks for m in talk if m["role"] == "user"}
    assert len(said) > 8_000
    assert not said & held_out
    everything = "\n".join(sorted(said))
    assert [question for question in held_out if question in everything] == []


def test_the_written_wordings_do_not_hold_a_held_out_question() -> None:
    speaker = Corpus(1).speaker
    clashes = [q for fact in load_facts() for p in fact.ask for q in expand(p) if not speaker.allowed(q)]
    assert clashes == []


def test_conversations_alternate_and_reach_ten_turns() -> None:
    talks = list(itertools.islice(Corpus(2), 500))
    for talk in talks:
        assert [m["role"] for m in talk] == ["user", "assistant"] * (len(talk) // 2)
    assert {len(talk) // 2 for talk in talks} >= {1, 2, 3, 10}


def test_the_held_out_file_is_what_the_scripts_write() -> None:
    assert load_held_out(HELD_OUT) == held_out_conversations()


def test_questions_cover_every_fact() -> None:
    questions = load_questions()
    assert len(questions) == len(single_questions(load_facts())) + len(multi_questions())
    assert {q.fact for q in questions} == {fact.id for fact in load_facts()}
    assert {q.turns for q in questions} == {1, 2, 3, 4, 5}


def test_the_judge_is_strict() -> None:
    question = Question([], "f", "the cat sat on the mat", ("the dog sat on the mat",))
    assert judge("the cat sat on the mat", question)
    assert not judge("the dog sat on the mat", question)
    assert not judge("the cat", question)
    assert not judge("", question)
