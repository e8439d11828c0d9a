"""Chunks of llama.cpp, as they were seen, become tokens: also bytes of a character that only its last token ends."""

from __future__ import annotations

import json
from typing import Any

from runtimekit import nothing

from rk_gemma_runtime.engines.cpustream import Stream
from rk_gemma_runtime.jobs import Request
from rk_gemma_runtime.stop import Stop


def chunk(text: str, token: int, predicted: int, finish: str | None = None) -> bytes:
    entry = {"id": token, "token": text, "bytes": list(text.encode())}
    choice: dict[str, Any] = {"text": text, "index": 0, "logprobs": {"content": [entry]}, "finish_reason": finish}
    timings = {"cache_n": 3, "prompt_n": 2, "prompt_ms": 5.0, "predicted_n": predicted, "predicted_ms": 9.0}
    return json.dumps({"choices": [choice], "timings": timings}).encode()


def stream(stop: tuple[int, ...] = (1,)) -> tuple[Stream, list[int]]:
    heard: list[int] = []
    request = Request((2, 5, 6, 7, 8), 20, stop)
    return Stream(request, heard.append, nothing, Stop()), heard


def test_a_character_of_four_byte_pieces_is_four_tokens() -> None:
    reader, heard = stream()
    assert reader.on_chunk(chunk("a", 300, 1)) is False
    assert reader.on_chunk(chunk("\U0001f600", 216, 5)) is False
    assert heard == [300, -1 - 0xF0, -1 - 0x9F, -1 - 0x98, 216]
    assert reader.finish().new_tokens == 5


def test_byte_pieces_before_an_ordinary_one() -> None:
    reader, heard = stream()
    reader.on_chunk(chunk("\u00e9x", 301, 3))
    assert heard == [-1 - 0xC3, -1 - 0xA9, 301]


def test_every_end_id_ends_the_answer() -> None:
    reader, heard = stream(stop=(1, 107, 108))
    reader.on_chunk(chunk("a", 300, 1))
    assert reader.on_chunk(chunk("\n", 108, 2)) is True
    finish = reader.finish()
    assert heard == [300]
    assert (finish.reason, finish.new_tokens, finish.cached_tokens, finish.prefill_s) == ("stop", 1, 3, 0.005)


def test_how_much_of_the_prompt_was_read_is_told_and_a_wish_ends_the_reading() -> None:
    told: list[tuple[int, int]] = []
    stop = Stop()
    reader = Stream(Request((2,) * 300, 20), nothing, lambda done, total: told.append((done, total)), stop)
    choice = {"text": "", "index": 0, "logprobs": None, "finish_reason": None}
    progress = {"total": 300, "cache": 0, "processed": 128, "time_ms": 5}
    reading = json.dumps({"choices": [choice], "prompt_progress": progress}).encode()
    assert reader.on_chunk(reading) is False
    assert told == [(128, 300)]
    stop.wish()
    assert reader.on_chunk(reading) is True
    assert (reader.finish().reason, reader.finish().new_tokens) == ("abort", 0)
