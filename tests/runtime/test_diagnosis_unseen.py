"""Logs in the shapes that people paste them in, labelled before any rule had seen them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from diagnosiskit import banner, causes, logs

from rk_gemma_runtime.diagnosis import Diagnosis, diagnose, diagnose_stream

UNSEEN = logs("unseen.jsonl")
GOOD = [banner(), "rkllm init success", "I rkllm: rkllm_run ended"]


def told(record: dict[str, Any]) -> Diagnosis:
    return diagnose_stream(io.BytesIO(record["text"].encode(record.get("encoding", "utf-8"))))


def kind(record: dict[str, Any]) -> str:
    return str(record["id"]).rpartition("-")[0]


@pytest.mark.parametrize("chosen", sorted(set(map(kind, UNSEEN))))
def test_the_first_cause_is_right(chosen: str) -> None:
    told_ones = [(record["id"], record["first"], told(record)) for record in UNSEEN if kind(record) == chosen]
    wrong = [(name, found.first.rule, causes(found)) for name, first, found in told_ones if found.cause not in first]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "[ERROR] no answer",
        "[ error ] no answer",
        "ERROR:rkchat:no answer",
        "2026-02-03 10:10:10 - rkchat - ERROR - no answer",
        "Feb 03 10:00:01 opi rkchat[221]: CRITICAL: no answer",
        "rkchat-1  | [2026-02-03 10:10:10] FATAL no answer",
        '{"ts": 1, "level": "error", "msg": "no answer"}',
        "level=fatal msg=broke",
        "E0203 10:10:10.221100 411 engine.cpp:88] no answer",
        "rkchat: fatal: no answer",
        "Error while generating",
        "An unexpected error occurred.",
        "Fehler: keine Antwort",
        "エラー: 応答なし",
        "rkchat.service: Failed with result 'exit-code'.",
        "make: *** [Makefile:3: run] Error 1",
        "exit status 3",
        'INFO: 127.0.0.1:5112 - "POST /v1/chat/completions HTTP/1.1" 500 Internal Server Error',
        "goroutine 7 [running]:",
    ],
)
def test_ok_is_not_said_beside_an_error_of_any_program(line: str) -> None:
    for log in ([*GOOD, line], [line, *GOOD]):
        found = diagnose(log)
        assert (found.cause, found.evidence[0].text) == ("other", line)


@pytest.mark.parametrize(
    "line",
    [
        "[INFO] 0 errors",
        "ERROR: 0",
        "errors: none",
        "error=<nil>",
        'level=info msg="no error"',
        "[    1.0] foo: error: -110",
        "Feb 03 10:00:01 opi kernel: mmc1: error: timeout",
        "snapd.service: Failed with result 'exit-code'.",
        "exit code 0",
        'GET /error.html HTTP/1.1" 404',
        "INFO error handler installed",
        "rkchat: errors are logged to /var/log",
        "libGL error: failed to load driver: rockchip",
        "ERROR: pip's dependency resolver does not currently take into account x",
    ],
)
def test_words_about_errors_accuse_nobody(line: str) -> None:
    assert diagnose([*GOOD, line]).cause == "ok"


@pytest.mark.parametrize("speaker", ["user:", "robot:", "Assistant:", "You:", "Q:"])
@pytest.mark.parametrize(
    "words",
    [
        "what is a segmentation fault?",
        "A segmentation fault means a wrong memory access.",
        "Kernel panic - not syncing is the last line.",
        "it says 'Out of memory: Killed process 12'",
        "If you get permission denied on /dev/dri/renderD129, join the group.",
        "The exception ValueError: bad value ends the program.",
        "a program that was killed leaves exit code 137",
    ],
)
def test_what_a_chat_is_about_is_not_what_happened(speaker: str, words: str) -> None:
    assert diagnose([*GOOD, f"{speaker} {words}"]).cause == "ok"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("robot: Segmentation fault (core dumped)", "segfault"),
        ("robot: Hello! How can ISegmentation fault", "segfault"),
        ("robot: Hello Segmentation fault (core dumped)", "segfault"),
        ("robot: E rkllm: matmul(w8a8) run failed", "driver_too_old"),
        ("robot: :0: GGML_ASSERT(n_tokens <= n_batch) failed", "other"),
        ("robot: well <pad><pad><pad><pad>", "garbage_output"),
    ],
)
def test_a_program_may_fail_in_the_middle_of_an_answer(line: str, cause: str) -> None:
    assert diagnose([banner(driver="0.8.2"), "rkllm init success", line]).cause == cause


def test_a_logger_that_calls_everything_an_error_is_not_believed() -> None:
    assert diagnose([f"2026-02-03 10:10:10,220 ERROR {line}" for line in (*GOOD, "done")]).cause == "ok"
    assert diagnose([*GOOD, "2026-02-03 10:10:10,220 ERROR no answer"]).cause == "other"
