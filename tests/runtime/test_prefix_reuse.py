"""Ten turns: each prefills only what is new, and says the same as without reuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from runtimekit import forgets_on_rewind

from rk_gemma_runtime.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board

QUESTIONS = [
    "Hi!", "What is the NPU?", "What does failed to malloc npu memory mean?", "And what should I do?", "Thank you.",
    "How do I export a model?", "Which driver do I need?", "What is a bundle?", "Who are you?", "Bye.",
]  # fmt: skip
ANSWER = 16


def growing(gemma: Assistant, turn: int, before: list[int]) -> list[int]:
    """The next prompt of an ids-only conversation: all that was, and a few ids more."""
    return [*before, *((7 * turn + k) % 500 + 3 for k in range(5))]


@pytest.mark.parametrize(("backend", "layout"), [("npu", "1.3.0"), ("cpu", "1.3.0")])
def test_ten_turns_of_ids(backend: str, layout: str, tiny_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma, fresh = assistant(tiny_bundle, backend, layout), assistant(tiny_bundle, backend, layout)
    ids: list[int] = [2]
    known = 0
    for turn in range(10):
        prompt = growing(gemma, turn, ids)
        for each in (gemma, fresh):
            list(each.generate(prompt, max_tokens=6, temperature=0))
        assert gemma.last is not None
        assert fresh.last is not None
        assert gemma.last.ids == fresh.last.ids, turn
        assert fresh.last.cached_tokens == 0
        assert known - 1 <= gemma.last.cached_tokens <= known or forgets_on_rewind(), turn
        fresh.forget()
        ids = [*prompt, *gemma.last.ids]
        known = len(ids)


def test_a_chat_that_took_another_way_uses_what_is_common(
    tiny_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(tiny_bundle, "npu")
    common = [2, *range(100, 130)]
    for tail, cached in (([7, 8, 9], 0), ([10, 11], len(common)), ([10, 11], len(common) + 2)):
        list(gemma.generate([*common, *tail], max_tokens=4, temperature=0))
        assert gemma.last is not None
        assert cached - 1 <= gemma.last.cached_tokens <= cached or forgets_on_rewind()


def test_a_library_without_reuse_says_zero(tiny_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(tiny_bundle, "npu", "1.1.0")
    for _ in range(3):
        list(gemma.generate([2, 5, 9, 11], max_tokens=4, temperature=0))
        assert gemma.last is not None
        assert gemma.last.cached_tokens == 0


def test_an_aborted_answer_leaves_a_cache_that_is_right(
    tiny_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=5000)
    for backend in ("npu", "cpu"):
        gemma = assistant(tiny_bundle, backend)
        prompt = [2, *range(200, 220)]
        items = gemma.model._backends.generate(_request(gemma, prompt), Stop())
        got: list[int] = []
        while len(got) < 5:
            got += next(items).ids  # type: ignore[union-attr]
        items.close()
        after = [*prompt, *got, 33, 34]
        list(gemma.generate(after, max_tokens=12, temperature=0))
        assert gemma.last is not None
        with_cache = gemma.last
        gemma.forget()
        list(gemma.generate(after, max_tokens=12, temperature=0))
        assert gemma.last.ids == with_cache.ids
        assert with_cache.cached_tokens >= len(prompt) - 1 or (backend == "npu" and forgets_on_rewind())


def _request(gemma: Assistant, ids: list[int]) -> object:
    from rk_gemma_runtime.jobs import Request, Sampling

    return Request(tuple(ids), 40, gemma.bundle.manifest.eos, Sampling(0.0))


@pytest.mark.parametrize(("backend", "layout"), [("npu", "1.3.0"), ("cpu", "1.3.0"), ("npu", "1.1.0")])
def test_ten_turns_of_talk(backend: str, layout: str, demo_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma, fresh = assistant(demo_bundle, backend, layout), assistant(demo_bundle, backend, layout)
    known = 0
    for turn, question in enumerate(QUESTIONS):
        fresh.history = list(gemma.history)
        for each in (gemma, fresh):
            list(each.chat(question, max_tokens=ANSWER, temperature=0))
        fresh.forget()
        answer = gemma.last
        assert answer is not None
        assert fresh.last is not None
        assert answer.ids == fresh.last.ids, turn
        if layout == "1.1.0":
            assert answer.cached_tokens == 0
        elif gemma.history[-1].ids == answer.ids and gemma.tokenizer.decode(list(answer.ids)).strip() == answer.text:
            assert known - 1 <= answer.cached_tokens <= known + 2 or forgets_on_rewind(), turn
        known = answer.prompt_tokens + answer.new_tokens
    assert len(gemma.history) >= 2
