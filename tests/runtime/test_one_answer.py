"""Cancel, results and refusals belong to one answer: whatever ends it, it is the beginning of the greedy one, and the
next answer is whole."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import pytest
from answerkit import (
    BACKENDS,
    FIRST,
    SECOND,
    SLOW,
    THIRD,
    Wanted,
    ask,
    begin,
    begin_in_thread,
    in_a_thread,
    is_part,
)
from runtimekit import patient

import rk_gemma_runtime as rk
from rk_gemma_runtime.errors import PromptError, RkGemmaError, TemplateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.board

Opened = Any  # the fixture `opened`
STOPS = ("cancel", "close", "abort")


def stop(how: str, gemma: Any, reply: Any) -> None:
    getattr(gemma if how == "abort" else reply, how)()


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_reply_that_is_stopped_before_it_began_runs_nothing(how: str, opened: Opened, wanted: Wanted) -> None:
    gemma = opened()
    ask(gemma, SECOND)
    reply = gemma.chat(FIRST, temperature=0)
    stop(how, gemma, reply)
    assert list(reply) == []
    if how == "cancel":
        assert (reply.answer.finish_reason, reply.answer.ids, reply.answer.text) == ("abort", (), "")
    assert gemma.history == []
    assert ask(gemma, THIRD) == wanted[THIRD]


@pytest.mark.parametrize(("backend", "layout"), BACKENDS)
@pytest.mark.parametrize("how", STOPS)
def test_a_reply_that_is_stopped_half_way(
    how: str, backend: str, layout: str, opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened(backend, layout)
    reply = begin(gemma, FIRST)
    pieces = [next(reply)]
    stop(how, gemma, reply)
    pieces += list(reply)
    answer = reply.answer
    # The CPU of a host may have made the whole answer before anybody can stop it; then it is the engine's to say.
    assert is_part(answer, wanted[FIRST]) or (backend == "cpu" and how == "abort" and answer.ids == wanted[FIRST])
    assert answer.text == "".join(pieces)
    assert gemma.last == answer
    assert ask(gemma, SECOND) == wanted[SECOND]
    assert reply.answer == answer


@pytest.mark.parametrize("how", ["cancel", "abort"])
def test_a_reply_that_is_stopped_from_another_thread(how: str, opened: Opened, profile: Any, wanted: Wanted) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    reply, listener = begin_in_thread(gemma, FIRST)
    start = time.monotonic()
    stop(how, gemma, reply)
    assert time.monotonic() - start < patient(0.3)
    assert listener.ended(2).error is None
    assert is_part(reply.answer, wanted[FIRST])
    assert len(reply.answer.ids) < len(wanted[FIRST])
    assert reply.answer.text == "".join(listener.pieces)
    assert ask(gemma, SECOND) == wanted[SECOND]


@pytest.mark.parametrize("how", ["cancel", "close", "drop"])
def test_a_reply_that_has_ended_does_not_touch_the_next(
    how: str, opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW // 2)
    gemma = opened()
    over = [begin(gemma, FIRST)]
    list(over[0])
    reply = begin(gemma, SECOND)
    pieces = [next(reply)]
    if how == "drop":
        over.clear()
        gc.collect()
    else:
        stop(how, gemma, over[0])
    pieces += list(reply)
    assert reply.answer.finish_reason == "stop"
    assert reply.answer.ids == wanted[SECOND]
    assert reply.answer.text == "".join(pieces)


def test_abort_without_an_answer_does_nothing(opened: Opened, wanted: Wanted) -> None:
    gemma = opened()
    gemma.abort()
    waiting = begin(gemma, FIRST)
    gemma.abort()  # nothing is in progress yet
    list(waiting)
    assert (waiting.answer.finish_reason, waiting.answer.ids) == ("stop", wanted[FIRST])
    gemma.abort()
    assert ask(gemma, SECOND) == wanted[SECOND]


def test_each_reply_has_its_answer_and_last_is_the_one_that_ended_last(
    opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW // 4)
    gemma = opened()
    first, second = begin(gemma, FIRST), begin(gemma, SECOND)
    assert (first.answer, second.answer, gemma.last) == (None, None, None)
    list(second)
    assert gemma.last == second.answer
    next(first)
    assert first.answer is None
    assert gemma.last == second.answer
    list(first)
    assert gemma.last == first.answer
    assert (first.answer.ids, second.answer.ids) == (wanted[FIRST], wanted[SECOND])


@pytest.mark.parametrize("other_thread", [False, True])
def test_forgetting_half_way_keeps_the_answer(
    other_thread: bool, opened: Opened, profile: Any, wanted: Wanted
) -> None:
    profile(token_delay_us=SLOW)
    gemma = opened()
    reply = begin(gemma, FIRST)
    next(reply)
    start = time.monotonic()
    in_a_thread(gemma.forget) if other_thread else gemma.forget()
    assert time.monotonic() - start < patient(0.3)
    list(reply)
    assert (reply.answer.finish_reason, reply.answer.ids) == ("stop", wanted[FIRST])
    cached = []
    for _ in range(2):
        assert ask(gemma, FIRST) == wanted[FIRST]
        cached.append(gemma.last.cached_tokens)
    assert cached[0] == 0 < cached[1]


BAD: list[tuple[str, type[RkGemmaError], Callable[[Any], object]]] = [
    ("no ids", PromptError, lambda g: g.generate([])),
    ("too long", PromptError, lambda g: g.generate([5] * g.context)),
    ("outside", PromptError, lambda g: g.generate([2, 1 << 20])),
    ("negative", PromptError, lambda g: g.generate([2, -1])),
    ("not an id", RkGemmaError, lambda g: g.generate([2, "5"])),
    ("a text for ids", RkGemmaError, lambda g: g.generate("255")),
    ("no tokens", UsageError, lambda g: g.chat("Hi", max_tokens=0)),
    ("no tokens of ids", UsageError, lambda g: g.generate([2], max_tokens=-1)),
    ("a number", UsageError, lambda g: g.chat(5)),
    ("nothing", UsageError, lambda g: g.chat(None)),
    ("blank", PromptError, lambda g: g.chat(" \n")),
    ("surrogate", PromptError, lambda g: g.chat("lone \udcff")),
    ("long text", PromptError, lambda g: g.chat("word " * 3000)),
    ("no messages", RkGemmaError, lambda g: g.chat([])),
    ("bad role", TemplateError, lambda g: g.chat([{"role": "robot", "content": "Hi"}])),
    ("no content", RkGemmaError, lambda g: g.chat([{"role": "user"}])),
]  # fmt: skip


def test_what_cannot_be_asked_is_refused_at_the_call(opened: Opened, wanted: Wanted) -> None:
    gemma = opened()
    ask(gemma, FIRST)
    before, pid = gemma.last, gemma.worker_pid
    late = []
    for name, kind, call in BAD:
        try:
            call(gemma)
        except kind:
            continue
        except Exception as error:
            late.append(f"{name}: {error!r}")
        else:
            late.append(f"{name}: not refused at the call")
    assert late == []
    assert (gemma.last, gemma.worker_pid, gemma.history) == (before, pid, [])
    assert ask(gemma, SECOND) == wanted[SECOND]


def test_a_model_is_asked_with_ids_or_with_what_gives_them(
    twin_bundle: Path, simulator: Callable[[str], Path], wanted: Wanted
) -> None:
    with rk.Assistant.open(twin_bundle, backend="cpu", threads=1) as gemma:
        from rk_gemma_runtime.chat import render

        ids = tuple(render([{"role": "user", "content": FIRST}], gemma.tokenizer).ids)
    with rk.Model.open(twin_bundle, backend="npu", librkllmrt=str(simulator("1.3.0")), threads=1) as model:
        assert model.check(list(ids)) == ids
        for bad in ([], [1 << 20], [5] * model.context):
            with pytest.raises(PromptError):
                model.check(bad)
            with pytest.raises(PromptError):
                model.answer(bad)
        for given in (ids, lambda: ids):
            reply = model.answer(given, sampling=rk.Sampling(0.0))
            assert "".join(reply) == reply.answer.text
            assert (reply.answer.ids, model.last) == (wanted[FIRST], reply.answer)
        late = model.answer(lambda: (), sampling=rk.Sampling(0.0))
        with pytest.raises(PromptError):
            next(late)
        assert not model.busy
