"""What a conversation remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rk_gemma_runtime.chat import Message, render
from rk_gemma_runtime.errors import PromptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board


def say(gemma: Assistant, text: str, most: int = 6) -> str:
    return "".join(gemma.chat(text, max_tokens=most, temperature=0))


def test_an_answer_is_remembered_with_its_ids(demo_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(demo_bundle)
    gemma.reset("Be brief.")
    text = say(gemma, "What is the NPU?")
    assert gemma.last is not None
    assert text == gemma.last.text
    assert gemma.history[:2] == [Message("system", "Be brief."), Message("user", "What is the NPU?")]
    if text.strip():
        assert gemma.history[2:] == [Message("assistant", text, gemma.last.ids)]


def test_a_refused_message_is_not_remembered(demo_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(demo_bundle)
    say(gemma, "What is the NPU?")
    before = list(gemma.history)
    for bad in ("word " * 3000, " \n", "lone \udcff"):
        with pytest.raises(PromptError):
            say(gemma, bad)
        assert gemma.history == before
    with pytest.raises(UsageError):
        say(gemma, "Hi", most=0)
    assert gemma.history == before


def test_a_list_of_messages_stands_alone(demo_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(demo_bundle)
    messages = [{"role": "user", "content": "Hi"}]
    alone = "".join(gemma.chat(messages, max_tokens=6, temperature=0))
    assert gemma.history == []
    assert say(gemma, "Hi") == alone


def test_an_answer_that_was_left_is_remembered_as_far_as_it_came(
    demo_bundle: Path, assistant: Callable[..., Assistant], profile: Callable[..., Path]
) -> None:
    profile(token_delay_us=10_000)
    gemma = assistant(demo_bundle)
    pieces = gemma.chat("What is the NPU?", max_tokens=200, temperature=0)
    got = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert gemma.last is not None
    assert gemma.last.text.startswith(got)
    assert gemma.last.finish_reason == "abort"
    if got.strip():
        assert gemma.history[-1].content == gemma.last.text
    say(gemma, "And now?")
    assert gemma.last.new_tokens > 0


def test_a_long_conversation_drops_its_oldest_exchanges_and_keeps_the_system_message(
    demo_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    gemma = assistant(demo_bundle)
    filler = "What is the NPU? " * 20
    for n in range(12):
        gemma.history += [Message("user", f"{n} {filler}"), Message("assistant", "An NPU.")]
    gemma.history.insert(0, Message("system", "Be brief."))
    say(gemma, "Hi", most=8)
    assert gemma.last is not None
    assert gemma.last.prompt_tokens + 8 <= gemma.context
    assert gemma.just_forgot
    assert len(gemma.history) == 27  # what is no longer sent is still remembered
    assert gemma.history[0] == Message("system", "Be brief.")
    shown = render([gemma.history[0], *gemma.history[-6:-1]], gemma.tokenizer).ids
    assert len(shown) <= gemma.last.prompt_tokens
    say(gemma, "And now?", most=8)
    assert not gemma.just_forgot


def test_text_of_an_answer_is_the_text_of_its_ids_on_both_backends(
    demo_bundle: Path, assistant: Callable[..., Assistant]
) -> None:
    """Also where characters are split over byte tokens: the pieces add up to what the ids say."""
    for backend in ("npu", "cpu"):
        gemma = assistant(demo_bundle, backend)
        for seed in range(3):
            pieces = list(gemma.chat(f"{seed}: Grüße 日本 🙂", max_tokens=60, temperature=3.0))
            assert gemma.last is not None
            assert all(i >= 0 for i in gemma.last.ids)
            assert "".join(pieces) == gemma.last.text
            if gemma.last.finish_reason == "length":  # an unfinished character at the end may not be told
                assert 57 <= gemma.last.new_tokens <= 60
            assert gemma.last.text == gemma.tokenizer.decode(list(gemma.last.ids))
