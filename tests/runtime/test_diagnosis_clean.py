"""Bytes to lines: numbers, windows, wrapping, and any bytes at all in linear time and bounded memory."""

from __future__ import annotations

import io
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from diagnosiskit import banner, logs, malloc, refused
from runtimekit import patient

from rk_gemma_runtime.diagnosis import diagnose, diagnose_stream, examine
from rk_gemma_runtime.diagnosis.clean import clean, without_prefix
from rk_gemma_runtime.diagnosis.finder import GramTable, search

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 1 << 20
LINE = b"E rkllm: matmul(w8a8) run failed"
PIECES = [line.encode() for record in logs("reports.jsonl") for line in record["log"]]


@pytest.mark.parametrize(
    "raw",
    [
        "Nov 21 10:00:00 host prog[123]: E rkllm: x", "2026-11-21T10:00:00+0000 host prog[1]: E rkllm: x",
        "<6>[   12.345678] E rkllm: x", "[Sat Nov 21 10:00:00 2026] E rkllm: x", "web_1  | E rkllm: x",
        "2026-11-21T10:00:00.123456789Z stderr F E rkllm: x", "11-21 10:00:00.000  2211  2211 E rkllm: x",
        "2026-11-21 10:00:00,123 ERROR E rkllm: x", "> - `E rkllm: x`", '{"log":"E rkllm: x\\n","stream":"stderr"}',
        "\x1b[31mE rkllm: x\x1b[0m", "#033[31mE rkllm: x#033[0m", "\ufeff  E rkllm: x \r", "\x00E rkllm: x\x00",
        "rk_gemma_runtime.library: E rkllm: x", "2026-11-21 10:00:00 host kernel: E rkllm: x",
    ],
)  # fmt: skip
def test_prefixes_are_taken_off(raw: str) -> None:
    assert without_prefix(clean(raw.encode())) == "E rkllm: x"


def test_a_library_line_is_no_prefix() -> None:
    for text in (
        "E RKNN: [10:00:00.000] text",
        "E RKNN    : text",
        "I rkllm: a b: c",
        "RKNPU fdab0000.npu: RKNPU: text",
    ):
        assert without_prefix(text) == text


def test_numbers_count_lines_as_editors_do() -> None:
    data = b"\n" * 70_000 + b"a\r\n" * 10 + LINE + b"\r\n" + b"x\n" * 90_000 + refused(14).encode()
    found = diagnose_stream(io.BytesIO(data))
    numbers = {e.line for v in (found.first, *found.others) for e in v.evidence}
    assert numbers == {70_011, 160_012}


@pytest.mark.parametrize("size", [1, 7, 4096, 5000, 1 << 20])
def test_chunks_make_no_difference(size: int) -> None:
    data = b"x" * 9000 + b"\n" + b"\n".join(PIECES) + b"\n" + b"y" * 20_000 + LINE
    whole = examine([data]).diagnosis
    assert examine(data[i : i + size] for i in range(0, len(data), size)).diagnosis == whole


def test_text_far_into_a_long_line_is_found_and_shown() -> None:
    found = diagnose_stream(io.BytesIO(b"z" * (3 * MB) + refused(14).encode() + b"z" * MB))
    (evidence,) = found.evidence
    assert evidence.line == 1
    assert len(evidence.text) <= 300
    assert "errno: 14" in evidence.text


def test_glued_lines_are_told_apart() -> None:
    assert diagnose(["E rkllm: matmul(w8a8) run failedrobot: hello"]).cause == "driver_too_old"
    progress = b"Converting model: 10%\rConverting model: 20%\r" + LINE + b"\rConverting model: 30%"
    (evidence, *_) = diagnose_stream(io.BytesIO(progress)).evidence
    assert (evidence.line, evidence.text) == (1, LINE.decode())


def test_a_line_that_was_wrapped_is_read_as_one() -> None:
    found = diagnose(["E RKNN: [10:00:00.000] failed to malloc npu memory,", "  size: 3633315840, flags: 0x2"])
    assert found.facts.sizes == (3633315840,)
    assert found.evidence[0].line == 1
    two = diagnose(["E RKNN: failed to allocate handle, ret: -1", "E RKNN: something, errno: 24, errstr: x"])
    assert two.cause != "fd_limit"


def test_utf_16_with_its_mark_is_read() -> None:
    for encoding in ("utf-16", "utf-16-be"):
        mark = b"\xfe\xff" if encoding.endswith("be") else b""
        assert diagnose_stream(io.BytesIO(mark + refused(24).encode(encoding))).cause == "fd_limit"


def test_a_line_break_inside_a_line_counts_once() -> None:
    assert diagnose(["a\nb", refused(24)]).evidence[0].line == 2


def test_both_ways_of_finding_find_the_same() -> None:
    needles = {b"failed", b"npu memory", b"errno: 14", b"rkllm", b"e rkllm:", b"(((((", b"zzzz", b"a" * 30}
    table = GramTable(needles)
    low = b"\n".join(PIECES).lower() * 3 + b"(((((((zzzzzz" + b"a" * 40 + b"(((("
    for start, stop in ((0, len(low)), (11, 4000), (len(low) - 60, len(low)), (5, 5)):
        assert set(table.spots(low, start, stop)) >= set(search(needles, low, start, stop))
    table.retire(b"rkllm")
    assert b"rkllm" not in {needle for _, needle in table.spots(low, 0, len(low))}


def repeated(*lines: bytes) -> bytes:
    block = b"".join(line + b"\n" for line in lines)
    return block * (12 * MB // len(block))


HEAVY = {
    "system log": repeated(
        *(b"Nov 21 10:00:%02d host prog[%d]: some words about nothing" % (i, i) for i in range(60))
    ),
    "errors": repeated(*PIECES),
    "one error": repeated(
        *(b"E RKNN: [10:00:00.%03d] failed to malloc npu memory, size: %d" % (i, i) for i in range(999))
    ),
    "almost": b"failed to open " * (12 * MB // 15),
    "short": b"rkllm\n" * (12 * MB // 6),
    "empty lines": b"\n" * (12 * MB),
    "one line": b"x" * (12 * MB),
    "nul": bytes(12 * MB),
    "one line of errors": LINE * (12 * MB // len(LINE)),
    "carriage returns": b"failed to allocate handle\r" * (12 * MB // 26),
    "blanks": b" " * (12 * MB),
    "prefixes": (b"10:00:00 " * 300 + b"rkllm: \n") * (12 * MB // 2708),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEAVY)
def test_ten_megabytes_a_second(kind: str) -> None:
    data = HEAVY[kind]
    start = time.process_time()
    diagnose_stream(io.BytesIO(data))
    # The rules, and as many lines as each may cost, take their second whatever the size; the rest is linear.
    assert time.process_time() - start < patient(2 + len(data) / (10 * MB))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["errors", "one line of errors", "short", "nul"])
def test_memory_does_not_grow_with_the_log(kind: str) -> None:
    data = HEAVY[kind][: 6 * MB]
    tracemalloc.start()
    try:
        diagnose_stream(io.BytesIO(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * MB


def test_the_last_line_of_a_long_log_counts() -> None:
    noise = b"I rkllm: prompt tokens: 1 2 3 failed to open, device killed\n" * 60_000
    found = diagnose_stream(io.BytesIO(noise + refused(24).encode()))
    assert (found.cause, found.evidence[0].line) == ("fd_limit", 60_001)


@settings(max_examples=150)
@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    found = diagnose_stream(io.BytesIO(data))
    assert 0 <= found.confidence <= 1


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=40), st.sampled_from([b"\r", b"\n", b"\0", b"\x1b["])),
        max_size=30,
    ),
    st.sampled_from([b"", b"\n", b"\r\n", b" "]),
    st.integers(1, 64),
)
def test_any_mixture_of_lines(pieces: list[bytes], glue: bytes, size: int) -> None:
    data = glue.join(pieces)
    found = examine(data[i : i + size] for i in range(0, len(data), size)).diagnosis
    assert examine([data]).diagnosis.cause == found.cause
    for verdict in (found.first, *found.others):
        assert verdict.explanation.endswith(".")
        for evidence in verdict.evidence:
            assert 1 <= evidence.line <= data.count(b"\n") + 1
            assert len(evidence.text) <= 300


@given(st.lists(st.text(max_size=60), max_size=8), st.integers(-5, 70))
def test_any_text_and_signal(lines: list[str], signal: int) -> None:
    diagnose([banner(), *lines, malloc(1)], signal=signal)


def test_lines_may_come_one_by_one() -> None:
    def endless() -> Iterator[str]:
        yield banner()
        yield from ("noise" for _ in range(100_000))
        yield refused(24) + "\n"

    assert diagnose(endless()).evidence[0].line == 100_002


def test_a_harmless_error_line_stays_harmless_however_often() -> None:
    lines = [banner(), "rkllm init success", *["E RKNN: unavailable core mask, use auto"] * 500]
    assert diagnose(lines).cause == "ok"
