"""What the library prints: parsed, kept, forwarded, and never on a stream of ours."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hostile.kit import builder
from runtimekit import patient, source

from rk_gemma_runtime.errors import NpuError, NpuReason, WorkerDied
from rk_gemma_runtime.jobs import Request
from rk_gemma_runtime.options import Limits
from rk_gemma_runtime.supervisor import Backend
from rk_gemma_runtime.supervisor.lines import KEPT_LINES, LINE_LIMIT, LineBook, parse_line, read_lines
from rk_gemma_runtime.wire import MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runtimekit import Cli

LOGGER = "rk_gemma_runtime.library"
# (line, level, component, time, text): public logs of 1.0.1 to 1.3.0, and texts of 1.2.1b1 in the shape it prints.
LINES = [
    ("E RKNN: [00:14:18.994] failed to allocate handle, ret: -1, errno: 14, errstr: Bad address",
     "error", "RKNN", "00:14:18.994", "failed to allocate handle, ret: -1, errno: 14, errstr: Bad address"),
    ("E RKNN: failed to malloc npu memory, size: 93241344, flags: 0x2",
     "error", "RKNN", "", "failed to malloc npu memory, size: 93241344, flags: 0x2"),
    ("I RKNN: [03:26:58.100] RKNN Driver Information, version: 0.9.8",
     "info", "RKNN", "03:26:58.100", "RKNN Driver Information, version: 0.9.8"),
    ("W RKNN: [00:00:00.000] Not support core mask: 8, fallback to single core auto mode",
     "warning", "RKNN", "00:00:00.000", "Not support core mask: 8, fallback to single core auto mode"),
    ("D RKNN: [23:59:59.999] unimport memory, fd: 3, refcount: 0",
     "debug", "RKNN", "23:59:59.999", "unimport memory, fd: 3, refcount: 0"),
    ("T RKNN: [23:59:59.999] allocated memory", "trace", "RKNN", "23:59:59.999", "allocated memory"),
    ("E RKNN: Unsupported log level: 9", "error", "RKNN", "", "Unsupported log level: 9"),
    ("E rkllm: rkllm_init failed", "error", "rkllm", "", "rkllm_init failed"),
    ("E rkllm: max_context[8192] must be less than the model's max_context_limit[4096]",
     "error", "rkllm", "", "max_context[8192] must be less than the model's max_context_limit[4096]"),
    ("W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7",
     "warning", "rkllm", "", "Warning: Your rknpu driver version is too low, please upgrade to 0.9.7"),
    ("I rkllm: rkllm-runtime version: 1.3.0, rknpu driver version: 0.9.2, platform: RK3588",
     "info", "rkllm", "", "rkllm-runtime version: 1.3.0, rknpu driver version: 0.9.2, platform: RK3588"),
    ("I rkllm: Enabled cpus: [4, 5, 6, 7]", "info", "rkllm", "", "Enabled cpus: [4, 5, 6, 7]"),
    ("I rkllm:  Prefill       149.89           34        4.41                     226.83",
     "info", "rkllm", "", " Prefill       149.89           34        4.41                     226.83"),
    ("I rkllm: reset chat template:", "info", "rkllm", "", "reset chat template:"),
    ("I rkllm: system_prompt: ", "info", "rkllm", "", "system_prompt: "),
    ("I rkllm: prompt_prefix: <|im_start|>user\\n", "info", "rkllm", "", "prompt_prefix: <|im_start|>user\\n"),
    ("D rkllm: rkllm_input is NULL", "debug", "rkllm", "", "rkllm_input is NULL"),
    # Bare ones: no level, no component, and nothing is guessed.
    ("rknn_init fail! ret=-1", "", "", "", "rknn_init fail! ret=-1"),
    ("rkllm init start", "", "", "", "rkllm init start"),
    ("rkllm-runtime version: 1.0.1", "", "", "", "rkllm-runtime version: 1.0.1"),
    ("Warning: Your rknpu driver version is too low, please upgrade to 0.9.7",
     "", "", "", "Warning: Your rknpu driver version is too low, please upgrade to 0.9.7"),
    ("RKNN: [22:16:52.189] failed to convert handle(1020) to fd, ret: -1, errno: 24, errstr: Too many open files",
     "", "", "",
     "RKNN: [22:16:52.189] failed to convert handle(1020) to fd, ret: -1, errno: 24, errstr: Too many open files"),
    ("free(): double free detected in tcache 2", "", "", "", "free(): double free detected in tcache 2"),
    ("E: not the library's", "", "", "", "E: not the library's"),
    ("X rkllm: no such level", "", "", "", "X rkllm: no such level"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "level", "component", "clock", "text"), LINES, ids=lambda v: str(v)[:24])
def test_a_line_has_its_parts(raw: str, level: str, component: str, clock: str, text: str) -> None:
    line = parse_line(raw, 12.5)
    assert (line.level, line.component, line.time, line.text) == (level, component, clock, text)
    assert (line.raw, line.read_at) == (raw, 12.5)


def test_lines_reach_the_logger_with_their_level(caplog: pytest.LogCaptureFixture) -> None:
    book = LineBook()
    with caplog.at_level(logging.DEBUG, LOGGER):
        for letter in "EWIDT":
            book.add(f"{letter} rkllm: %s {{}}\n".encode())
        book.add(b"bare\r\n")
    wanted = [logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG, logging.INFO]
    assert [(r.name, r.levelno) for r in caplog.records] == [(LOGGER, level) for level in wanted]
    assert caplog.messages == [*(f"{letter} rkllm: %s {{}}" for letter in "EWIDT"), "bare"]


def test_the_last_two_hundred_are_kept() -> None:
    book = LineBook()
    for number in range(KEPT_LINES + 50):
        book.add(f"I rkllm: {number}\n".encode())
    assert [line.text for line in book.lines()] == [str(n) for n in range(50, KEPT_LINES + 50)]
    assert book.raw() == tuple(line.raw for line in book.lines())


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"a\0b\n", ("a\0b",)),
        (b"W rkllm: \xff\xfe!\n", ("W rkllm: \ufffd\ufffd!",)),
        ("I rkllm: 你是".encode()[:-1], ("I rkllm: 你\ufffd",)),
        (b"no end", ("no end",)),
        (b"\r\n", ()),
        (b" \t\n", ()),
        (b"", ()),
        (f"{MARK}\n".encode(), ()),  # white space to Python
        (f"{MARK}2x\n".encode(), (f"{MARK}2x",)),
        (f"{MARK}²\n".encode(), (f"{MARK}²",)),  # a digit, and no number
        (f"{MARK}{'9' * 4000}\n".encode(), (f"{MARK}{'9' * 4000}",)),
        (f"{MARK}3\n".encode(), ()),
    ],
)
def test_any_bytes_are_a_line(data: bytes, kept: tuple[str, ...]) -> None:
    book = LineBook()
    book.add(data)
    assert book.raw() == kept


def test_a_mark_is_waited_for_until_it_comes_or_nothing_more_can() -> None:
    book = LineBook()
    assert not book.wait_for_mark(1, 0.01)
    book.add(f"{MARK}2\n".encode())
    assert book.wait_for_mark(1, 0)
    assert book.wait_for_mark(2, 0)
    assert not book.wait_for_mark(3, 0.01)
    book.end()
    start = time.monotonic()
    assert book.wait_for_mark(3, patient(30))
    assert time.monotonic() - start < patient(10)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    return builder(tmp_path_factory.getbasetemp() / "hostile")


@pytest.fixture
def opened(tiny_bundle: Path) -> Iterator[Callable[..., Backend]]:
    """opened(library, limits): closed at the end of the test."""
    made: list[Backend] = []

    def make(library: Path, limits: Limits | None = None) -> Backend:
        made.append(Backend(source("npu", tiny_bundle / "model.sim", 128, 1, str(library)), limits))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def answer(backend: Backend) -> list[int]:
    *tokens, _ = backend.generate(Request((2, 5, 9), 5))
    return [i for t in tokens for i in t.ids]  # type: ignore[union-attr]


def raw(backend: Backend) -> list[str]:
    return [line.raw for line in backend.lines]


@pytest.mark.board
@pytest.mark.parametrize("place", ["init", "run"])
def test_odd_bytes_are_kept_as_far_as_they_are_text(
    place: str, hostile: Callable[..., Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE", f"{place}:odd")
    backend = opened(hostile())
    assert answer(backend) == [7] * 5
    backend.close()
    assert raw(backend) == [
        f"E rkllm: hostile odd at {place}", "I rkllm: before\0after", "W rkllm: \ufffd\ufffd!", "I rkllm: half",
    ]  # fmt: skip


@pytest.mark.board
def test_lines_that_look_like_marks_do_no_more_harm_than_a_late_line(
    hostile: Callable[..., Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE", "init:marks")
    backend = opened(hostile())
    assert answer(backend) == [7] * 5
    backend.reset()
    assert answer(backend) == [7] * 5
    assert backend.alive
    backend.close()
    assert raw(backend) == ["E rkllm: hostile marks at init", f"{MARK}²", f"{MARK}7 and more"]


@pytest.mark.board
def test_half_a_line_at_the_end_is_a_line(
    hostile: Callable[..., Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = hostile()
    monkeypatch.setenv("HOSTILE", "init:half_line")
    with pytest.raises(WorkerDied) as caught:
        opened(library)
    assert caught.value.status == 3
    assert caught.value.lines == ("E rkllm: hostile half_line at init", "I rkllm: half a line")


@pytest.mark.board
def test_a_token_without_text_is_a_token(
    hostile: Callable[..., Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE", "text:null")
    *tokens, finish = opened(hostile()).generate(Request((2, 5, 9), 5))
    assert [i for t in tokens for i in t.ids] == [7] * 5
    assert finish.new_tokens == 5


@pytest.mark.board
def test_an_init_that_says_it_failed_and_returns_0_has_worked_if_the_model_runs(
    hostile: Callable[..., Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library may try another domain. That one which does not run has failed: test_breakdowns.py and others."""
    library = hostile()
    monkeypatch.setenv("HOSTILE", "init:failed")
    backend = opened(library)
    assert backend.lines[-1].text == "rknn_init fail! ret=-1"


@pytest.mark.board
def test_an_init_that_fails_late_is_a_refusal_and_no_hang(
    hostile: Callable[..., Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = hostile()
    monkeypatch.setenv("HOSTILE", "init:late")
    start = time.monotonic()
    with pytest.raises(NpuError, match="returned -1") as caught:
        opened(library, Limits(load_s=patient(60), first_token_s=0.2, token_s=0.2))
    assert time.monotonic() - start > 1.2
    assert caught.value.reason is NpuReason.INIT_FAILED
    assert caught.value.lines[-1] == "E rkllm: rkllm_init failed"


@pytest.mark.board
@pytest.mark.parametrize("size", [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT, 3 * LINE_LIMIT + 1])
def test_a_long_line_is_cut_and_the_next_one_is_whole(
    size: int, opened: Callable[..., Backend], simulator: Callable[[str], Path]
) -> None:
    """The reader by itself, on a pipe of its own; on a real worker see test_hostile_library.py."""
    process = opened(simulator("1.3.0"))._process
    read, write = os.pipe()
    before = len(process.lines())
    os.write(write, b"f" * size + b"\nI rkllm: next\n" + b"g" * size)
    os.close(write)
    read_lines(read, process._book)
    kept = [line.raw for line in process.lines()][before:]
    most = min(size, LINE_LIMIT)
    assert kept == ["f" * most, "I rkllm: next", "g" * most]


QUIET = """
import sys
from rk_gemma_runtime.jobs import Request, Setup
from rk_gemma_runtime.supervisor import Backend, Source
backend = Backend(Source("npu", Setup(sys.argv[1], 128, library=sys.argv[2])))
list(backend.generate(Request((2, 5), 5)))
backend.close()
print(len([line for line in backend.lines if line.level == "error"]))
"""


@pytest.mark.board
def test_a_program_without_logging_prints_nothing_of_it(
    hostile: Callable[..., Path], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = hostile()
    monkeypatch.setenv("HOSTILE", "init:odd")
    paths = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", QUIET, str(tiny_bundle / "model.sim"), str(library)]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONPATH": paths}, timeout=patient(60), check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")


PROMPT = re.compile(r"prompt (tokens|text)")
TABLE = re.compile(r"I rkllm:  (Prefill|Generate) +[0-9.]+ +[0-9]+ ")


@pytest.mark.board
def test_the_table_of_level_1_is_among_the_lines(
    simulator: Callable[[str], Path], opened: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "1")
    backend = opened(simulator("1.3.0"))
    answer(backend)
    backend.close()
    assert sum(bool(TABLE.match(line)) for line in raw(backend)) == 2
    assert not any(PROMPT.search(line) for line in raw(backend))


@pytest.mark.board
def test_the_table_of_level_1_is_not_on_the_streams_of_the_command(
    tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]]
) -> None:
    options = ("--ids", "2,5,9", "--max-tokens", 3, "--temperature", 0, "--backend", "npu")
    plain, with_table = (
        cli("run", tiny_bundle, *options, env={**board(), "RKLLM_LOG_LEVEL": level}, timeout=patient(60))
        for level in ("0", "1")
    )
    assert (with_table.returncode, with_table.stdout, with_table.stderr) == (0, plain.stdout, plain.stderr)
    assert re.fullmatch(r"\d+(,\d+){2}\n", plain.stdout)


@pytest.mark.board
@pytest.mark.parametrize(("keep", "printed"), [("", False), ("1", True)])
def test_level_2_prints_prompts_only_where_somebody_asked_for_it(
    keep: str,
    printed: bool,
    simulator: Callable[[str], Path],
    opened: Callable[..., Backend],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    monkeypatch.setenv("RK_GEMMA_LOG_PROMPTS", keep)
    backend = opened(simulator("1.3.0"))
    answer(backend)
    backend.close()
    assert any(PROMPT.search(line) for line in raw(backend)) == printed
    assert sum(bool(TABLE.match(line)) for line in raw(backend)) == 2
    warned = [r for r in caplog.records if r.levelno == logging.WARNING and "RKLLM_LOG_LEVEL" in r.getMessage()]
    assert len(warned) == (0 if printed else 1)
