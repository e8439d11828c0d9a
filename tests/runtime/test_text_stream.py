"""Bytes in any portions become the text that they are as a whole."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rk_gemma_runtime.chat import TextStream

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


def portions(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 200)))
def test_text_survives_any_cutting(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    pieces = [stream.feed(part) for part in portions(text.encode(), cuts)]
    assert "".join(pieces) + stream.finish() == text


@given(st.binary(), st.lists(st.integers(0, 200)))
def test_bytes_that_are_no_text_are_replaced_as_python_does(data: bytes, cuts: list[int]) -> None:
    stream = TextStream()
    pieces = [stream.feed(part) for part in portions(data, cuts)]
    assert "".join(pieces) + stream.finish() == data.decode("utf-8", errors="replace")


@given(st.text(min_size=1), st.data())
def test_only_whole_characters_come_out(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cut = data.draw(st.integers(0, len(raw)))
    assert text.startswith(TextStream().feed(raw[:cut]))


def test_finish_empties_the_stream() -> None:
    stream = TextStream()
    assert stream.feed(b"\xf0\x9f") == ""
    assert stream.finish() == "\ufffd"
    assert stream.feed(b"a") + stream.finish() == "a"
