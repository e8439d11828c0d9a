"""A library that behaves otherwise: answers stay right, the NPU stays in use, and nobody waits for long.

Each habit is a switch of the simulator (docs/simulator.md). Alone each is tried on three layouts, and then many of
them together, drawn by a fixed seed.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hostile.kit import builder
from runtimekit import patient

from rk_gemma_runtime import Limits, Noticed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board

LAYOUTS = ("1.1.0", "1.2.1", "1.3.0")
HABITS: dict[str, tuple[object, ...]] = {
    "eos_event": ("none", "token"),
    "eos": ("lost",),
    "finish": ("after", "none"),
    "finish_is_stale": (True,),
    "finish_after_abort": (False, "error"),
    "max_new_tokens": ("ignored",),
    "abort_when_idle": ("kept",),
    "abort_blocks_ms": (300, 3000),
    "abort_in_prefill": ("at_once", "at_end"),
    "busy_after_abort_ms": (400,),
    "busy_after_run_ms": (60,),
    "is_running_busy": (0,),
    "never_running": (True,),
    "split_characters": (True,),
    "null_text": (True,),
    "clear_empty": ("fails",),
    "token_bos": ("twice",),
    "init_says_malloc": (True,),
    "init_callbacks": (3,),
    "second_init": ("fails",),
    "extra_ids": ("negative", "beyond"),
    "token_after_finish": (True,),
    "null_results": (True,),
    "perf": ("zero", "cumulative"),
    "generate_tokens": ("all", "less_one"),
    "callback_after_destroy_ms": (50,),
}
ALONE = [(key, value) for key, values in HABITS.items() for value in values]
DRAWN = 200 if os.environ.get("RK_GEMMA_LONG") else 24  # combinations
QUESTIONS = ("What is errno 14?", "And what does errno 12 mean?")


@pytest.fixture(scope="module")
def wanted(demo_bundle: Path, simulator: Callable[[str], Path]) -> list[tuple[tuple[int, ...], str]]:
    """The same talk on a simulator without habits."""
    from rk_gemma_runtime import Assistant

    os.environ.pop("RK_GEMMA_SIM_PROFILE", None)
    with Assistant.open(demo_bundle, backend="npu", librkllmrt=str(simulator("1.3.0"))) as gemma:
        return talk(gemma)


def talk(gemma: Assistant) -> list[tuple[tuple[int, ...], str]]:
    """Two turns that end by themselves, one that is cut, one that is cancelled, one after it, and one of another
    sampling."""
    said = []
    for question in QUESTIONS:
        said.append(ask(gemma, question))
    said.append(ask(gemma, QUESTIONS[0], max_tokens=5))
    reply = gemma.chat("What is an IOMMU domain?", temperature=0)
    next(reply)
    reply.cancel()
    assert list(reply) == [] or reply.answer is not None
    gemma.reset()
    said.append(ask(gemma, QUESTIONS[1]))
    gemma.forget()
    gemma.reset()
    said.append(ask(gemma, QUESTIONS[1]))
    return said


def ask(gemma: Assistant, question: str, **options: Any) -> tuple[tuple[int, ...], str]:
    reply = gemma.chat(question, temperature=0, **options)
    list(reply)
    assert reply.answer is not None
    return reply.answer.ids, reply.answer.finish_reason


def check(
    habits: dict[str, object], layout: str, bundle: Path, assistant: Callable[..., Assistant],
    profile: Callable[..., Path], wanted: list[tuple[tuple[int, ...], str]],
) -> None:  # fmt: skip
    profile(**habits)
    heard: list[object] = []
    began = time.monotonic()
    gemma = assistant(bundle, "auto", layout, on_event=heard.append, limits=Limits(token_s=patient(8)))
    assert gemma.backend == "npu", (habits, gemma.degraded)
    assert talk(gemma) == wanted, habits
    assert gemma.backend == "npu", (habits, gemma.degraded)
    assert gemma.degraded is None
    assert gemma.last is not None
    assert gemma.last.backend == "npu"
    own = float(str(habits.get("abort_blocks_ms", 0))) / 1000
    assert time.monotonic() - began < patient(6 + 2 * own), habits
    bos = [event for event in heard if isinstance(event, Noticed) and event.cause == "extra_bos"]
    assert len(bos) == (habits.get("token_bos") == "twice" and counts(habits, layout))


def counts(habits: dict[str, object], layout: str) -> bool:
    """Whether the library tells what it has read: at FINISH, which older ones come to by an abort only (they know no
    limit of a run's own, and one end id)."""
    told = habits.get("perf") != "zero" and habits.get("finish", "inside") == "inside"
    aborts_tell = layout == "1.3.0" or habits.get("finish_after_abort", True) is True
    return layout != "1.1.0" and told and aborts_tell


def runs(habits: dict[str, object], layout: str) -> bool:
    """A <bos> too many is seen in the library's statistics only; without them it stays and answers are others."""
    return habits.get("token_bos") != "twice" or counts(habits, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("key", "value"), ALONE)
def test_alone(
    key: str, value: object, layout: str, demo_bundle: Path, assistant: Callable[..., Assistant],
    profile: Callable[..., Path], wanted: list[tuple[tuple[int, ...], str]],
) -> None:  # fmt: skip
    if not runs({key: value}, layout):
        pytest.skip("this layout has no statistics: a <bos> too many cannot be seen")
    check({key: value}, layout, demo_bundle, assistant, profile, wanted)


def drawn(number: int) -> tuple[dict[str, object], str]:
    """Some habits and a layout; the same for the same number."""
    dice = random.Random(number)
    keys = dice.sample(sorted(HABITS), dice.randint(2, 8))
    habits = {key: dice.choice(HABITS[key]) for key in keys}
    layout = LAYOUTS[number % len(LAYOUTS)]
    if not runs(habits, layout):
        del habits["token_bos"]
    return habits, layout


@pytest.mark.slow
@pytest.mark.parametrize("number", range(DRAWN))
def test_together(
    number: int, demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path],
    wanted: list[tuple[tuple[int, ...], str]],
) -> None:  # fmt: skip
    habits, layout = drawn(number)
    check(habits, layout, demo_bundle, assistant, profile, wanted)


@pytest.mark.parametrize("run", [1, 2, 4], ids=["proof", "first", "later"])
@pytest.mark.parametrize("how", ["nothing", "error", "refused"])
def test_a_run_that_brings_nothing_is_tried_once_more(
    how: str, run: int, demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path],
    wanted: list[tuple[tuple[int, ...], str]],
) -> None:  # fmt: skip
    check({"odd_run": run, "odd_run_is": how}, "1.3.0", demo_bundle, assistant, profile, wanted)


@pytest.mark.parametrize("how", ["nothing", "error", "refused"])
def test_rows_that_do_not_come_are_asked_for_once_more(
    how: str, demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(odd_run=2, odd_run_is=how)
    gemma = assistant(demo_bundle, "npu")
    assert gemma.hidden_states([2, 5, 9]).shape[0] == 3


def test_a_text_that_contradicts_its_id_is_said_once(
    demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(wrong_text=True)
    heard: list[object] = []
    gemma = assistant(demo_bundle, "npu", on_event=heard.append)
    for question in QUESTIONS:
        ask(gemma, question)
    (told,) = [event for event in heard if isinstance(event, Noticed)]
    assert told.cause == "other_tokenizer"
    assert "tokenizer.model" in told.message


def test_the_right_text_says_nothing(demo_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    heard: list[object] = []
    gemma = assistant(demo_bundle, "npu", on_event=heard.append)
    ask(gemma, "Schreib mir bitte ein Gedicht: äöü 你好")
    assert [event for event in heard if isinstance(event, Noticed)] == []


@pytest.mark.parametrize("backend", ["auto", "npu"])
def test_a_margin_is_learned_and_said_and_the_talk_goes_on(
    backend: str, demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(prompt_margin=60)
    heard: list[object] = []
    gemma = assistant(demo_bundle, backend, context=256, on_event=heard.append)
    for number in range(12):
        reply = gemma.chat(
            f"Question {number}: what is errno 14, and which remedy is there?", temperature=0, max_tokens=8
        )
        list(reply)
        assert reply.answer is not None
        assert reply.answer.backend == "npu"
    told = [event for event in heard if isinstance(event, Noticed)]
    assert [event.cause for event in told] == ["prompt_margin"] * len(told)
    assert 1 <= len(told) < 12
    assert gemma.model.prompt_limit < 256


def test_two_that_load_at_once_take_turns(
    demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(init_alone=True, init_delay_ms=400)
    made: list[Assistant] = []
    threads = [threading.Thread(target=lambda: made.append(assistant(demo_bundle, "npu"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [gemma.backend for gemma in made] == ["npu"] * 3


def test_an_answer_without_a_token_and_without_an_end_token_is_no_success(
    demo_bundle: Path,
    assistant: Callable[..., Assistant],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = builder(tmp_path_factory.getbasetemp() / "hostile")("1.3.0")
    monkeypatch.setenv("HOSTILE", "empty:106")  # every prompt of a conversation
    gemma = assistant(demo_bundle, "auto", librkllmrt=str(library))
    assert gemma.backend == "npu"
    ids, _ = ask(gemma, QUESTIONS[0])
    assert ids
    assert gemma.last is not None
    assert gemma.last.backend == "cpu"
    assert "without a token" in gemma.last.degraded.message  # type: ignore[union-attr]
