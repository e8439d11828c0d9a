"""Chunks of llama.cpp, as they were seen, become tokens: also bytes of a character that only its last token ends."""

from __future__ import annotations

import json
import threading
from typing import Any

from rk_gemma_runtime.engines.cpu import _Stream
from rk_gemma_runtime.jobs import Request


def chunk(text: str, token: int, predicted: int, finish: str | None = None) -> bytes:
    entry = {"id": token, "token": text, "bytes": list(text.encode())}
    choice: dict[str, Any] = {"text": text, "index": 0, "logprobs": {"content": [entry]}, "finish_reason": finish}
    timings = {"cache_n": 3, "prompt_n": 2, "prompt_ms": 5.0, "predicted_n": predicted, "predicted_ms": 9.0}
    return json.dumps({"choices": [choice], "timings": timings}).encode()


def stream(stop: tuple[int, ...] = (1,)) -> tuple[_Stream, list[tuple[int, bytes]]]:
    heard: list[tuple[int, bytes]] = []
    request = Request((2, 5, 6, 7, 8), 20, stop)
    return _Stream(request, lambda token, raw: heard.append((token, raw)), threading.Event()), heard


def test_a_character_of_four_byte_pieces_is_four_tokens() -> None:
    reader, heard = stream()
    assert reader.on_chunk(chunk("a", 300, 1)) is False
    assert reader.on_chunk(chunk("\U0001f600", 216, 5)) is False
    assert heard == [(300, b"a"), (-1 - 0xF0, b"\xf0"), (-1 - 0x9F, b"\x9f"), (-1 - 0x98, b"\x98"), (216, b"\x80")]
    assert reader.finish().new_tokens == 5


def test_byte_pieces_before_an_ordinary_one() -> None:
    reader, heard = stream()
    reader.on_chunk(chunk("\u00e9x", 301, 3))
    assert heard == [(-1 - 0xC3, b"\xc3"), (-1 - 0xA9, b"\xa9"), (301, b"x")]


def test_every_end_id_ends_the_answer() -> None:
    reader, heard = stream(stop=(1, 107, 108))
    reader.on_chunk(chunk("a", 300, 1))
    assert reader.on_chunk(chunk("\n", 108, 2)) is True
    finish = reader.finish()
    assert heard == [(300, b"a")]
    assert (finish.reason, finish.new_tokens, finish.cached_tokens, finish.prefill_s) == ("stop", 1, 3, 0.005)
