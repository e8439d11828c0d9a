"""The protocol between supervisor and worker, with no process at all."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from rk_gemma_runtime import wire
from rk_gemma_runtime.errors import WireError
from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Sampling, Setup

REQUEST = Request((2, 5, 255_999), 24, (1, 107), Sampling(0.0, 1, 0.5, 1.1, 0.25, -0.5))
SETUP = Setup(
    "/b/ä model.sim", 4096, 4, "/tmp/x", "/lib/librkllmrt.so", Sampling(0.5), 3, (("a", "/b/a.lora"), ("b", "/b/b")),
    256_000, (2, 128_000), "/dev/dri/renderD129",
)  # fmt: skip
MESSAGES: list[wire.Message] = [
    wire.Load("npu", SETUP),
    wire.Load("cpu", Setup("m", 1)),
    wire.Loaded("1.3.0", 1024, 102_400),
    wire.Loaded("1.2.1", 1024, 1024, False),
    wire.Noticed(0, "extra_bos", "one line"),
    wire.Heard(3, 1001, "c3a4"),
    wire.Progress(0, 1 << 33, 1 << 34),
    wire.Generate(1, REQUEST),
    wire.Generate(2**31, Request((), 1)),
    wire.Generate(2, Request((2,), 1, adapter="a", adapter_scale=0.5)),
    wire.Logits(2, RowsRequest((2, 5))),
    wire.Logits(3, RowsRequest((2, 5), True, "a", 0.5)),
    wire.Abort(3),
    wire.Reset(4),
    wire.Ping(5),
    wire.Pong(5, 10**9),
    wire.Tokens(6, (255_999,)),
    wire.Tokens(6, (-256, 7, 2**31 - 1)),
    wire.Rows(7, 2, struct.pack("<4f", 1, 2, 3, 4)),
    wire.Rows(7, 0, b""),
    wire.Done(8, Finish("stop", 5, 4, 3, 0.25, 1.5)),
    wire.Done(9, None),
    wire.Failed(10, "NpuError", "line one\nline two \ud83d", "init_failed"),
]
STREAM = b"".join(map(wire.encode, MESSAGES))


def decode(data: bytes) -> list[wire.Message]:
    return list(wire.Decoder().feed(data))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message: wire.Message) -> None:
    (back,) = decode(wire.encode(message))
    assert back == message
    assert type(back) is type(message)


def test_every_kind_is_tried() -> None:
    assert {type(m) for m in MESSAGES} == set(wire._KINDS)


def test_the_hot_path_writes_the_same_frame() -> None:
    assert wire.encode_tokens(6, [-256, 9]) == wire.encode(wire.Tokens(6, (-256, 9)))


def test_byte_by_byte() -> None:
    decoder = wire.Decoder()
    got = [m for i in range(len(STREAM)) for m in decoder.feed(STREAM[i : i + 1])]
    assert got == MESSAGES
    assert list(decoder.feed(b"")) == []


def test_an_unfinished_frame_waits_for_its_rest() -> None:
    for cut in (1, 4, 5, len(STREAM) - 1):
        decoder = wire.Decoder()
        first = list(decoder.feed(STREAM[:cut]))
        assert first == MESSAGES[: len(first)] != MESSAGES
        assert [*first, *decoder.feed(STREAM[cut:])] == MESSAGES


def test_messages_before_the_iterator_was_left_are_not_given_again() -> None:
    decoder = wire.Decoder()
    for message in decoder.feed(STREAM):
        assert message == MESSAGES[0]
        break
    assert list(decoder.feed(b"")) == MESSAGES[1:]


def frame(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<IB", 1 + len(body) if length is None else length, kind) + body


def of(kind: type[Any], tree: object) -> bytes:
    return frame(wire._KINDS.index(kind), json.dumps(tree).encode())


@pytest.mark.parametrize(
    "data",
    [
        frame(0, b"", length=0),
        frame(0, b"", length=wire.FRAME_LIMIT + 1),
        frame(0, b"123"),
        frame(0, b"1234"),
        frame(0, b"1234567"),
        frame(99, b"{}"),
        frame(wire._KINDS.index(wire.Rows), b"123"),
        frame(wire._KINDS.index(wire.Ping), b"\xff"),
        frame(wire._KINDS.index(wire.Ping), b"[" * 100_000),
        of(wire.Ping, {}),
        of(wire.Ping, {"number": 1, "more": 2}),
        of(wire.Ping, ["number"]),
        of(wire.Ping, None),
        of(wire.Ping, "number"),
        of(wire.Generate, {"number": 1, "request": None}),
        of(wire.Generate, {"number": 1, "request": {"ids": 5}}),
        of(wire.Generate, {"number": 1, "request": {"ids": [], "max_tokens": 1, "stop": [], "sampling": {"x": 1}}}),
        of(wire.Logits, {"number": 1, "request": None}),
        of(wire.Done, {"number": 1, "finish": {"reason": "stop"}}),
        of(wire.Done, {"number": 1, "finish": [1]}),
    ],
    ids=range(20),
)
def test_a_damaged_frame_is_a_wire_error(data: bytes) -> None:
    decoder = wire.Decoder()
    with pytest.raises(WireError):
        list(decoder.feed(data))


def test_whole_frames_before_a_damaged_one_are_given() -> None:
    stream = wire.Decoder().feed(wire.encode(MESSAGES[5]) + frame(99, b""))
    assert next(stream) == MESSAGES[5]
    with pytest.raises(WireError):
        next(stream)
