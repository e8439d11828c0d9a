"""The protocol under any chunking and any damage (hypothesis)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from test_wire import MESSAGES, STREAM

from rk_gemma_runtime import wire
from rk_gemma_runtime.errors import WireError
from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Sampling, Setup

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

number = st.integers(0, 2**32 - 1)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)
floats = st.floats(allow_nan=False, allow_infinity=False)
samplings = st.builds(Sampling, floats, st.integers(0, 1000), floats, floats, floats, floats)
requests = st.builds(Request, ids, st.integers(1, 2**31), ids, samplings, st.text(), floats)
adapters = st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple)
setups = st.builds(Setup, st.text(), number, number, st.text(), st.text(), samplings, st.integers(0, 15), adapters)
finishes = st.builds(
    Finish, st.text(), st.integers(0), st.integers(0), st.integers(0), floats, floats
)  # fmt: skip
messages = st.one_of(
    st.builds(wire.Tokens, number, st.lists(st.integers(-256, 2**31 - 1), min_size=1).map(tuple)),
    st.builds(wire.Rows, number, number, st.binary()),
    st.builds(wire.Generate, number, requests),
    st.builds(wire.Done, number, st.none() | finishes),
    st.builds(wire.Failed, number, st.text(), st.text(), st.text()),
    st.builds(wire.Load, st.text(), setups),
    st.builds(wire.Logits, number, st.builds(RowsRequest, ids, st.booleans(), st.text(), floats)),
    st.sampled_from(MESSAGES),
)


@given(st.lists(messages, max_size=8), st.lists(st.integers(0, 600)))
def test_any_chunking(sent: list[wire.Message], cuts: list[int]) -> None:
    stream = b"".join(map(wire.encode, sent))
    edges = [0, *sorted(min(c, len(stream)) for c in cuts), len(stream)]
    decoder = wire.Decoder()
    got = [m for a, b in pairwise(edges) for m in decoder.feed(stream[a:b])]
    assert got == sent
    assert list(decoder.feed(b"")) == []


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_another_message_or_a_wire_error(place: int, flip: int) -> None:
    damaged = bytearray(STREAM)
    damaged[place] ^= flip
    try:
        list(wire.Decoder().feed(bytes(damaged)))
    except WireError as error:
        assert str(error)


@given(st.binary(max_size=200))
def test_noise_is_a_wire_error_or_unfinished(noise: bytes) -> None:
    decoder = wire.Decoder()
    try:
        list(decoder.feed(noise))
    except WireError as error:
        assert str(error)
