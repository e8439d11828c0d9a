"""From the library's last lines to a reason, and the one line that a person should read.

errno decides, because the kernel driver returns 14 only where pages were found and no I/O address range was, and
12 only where pages were missing (rknpu driver 0.9.6 and 0.9.8, MEM_CREATE).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import NpuReason, WorkerDied

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.diagnosis import Diagnosis
    from rk_gemma_runtime.errors import NpuError, WorkerHung

_CLUES = (
    (re.compile(r"failed to allocate handle.*errno: 14"), NpuReason.IOVA_EXHAUSTED),
    (re.compile(r"failed to allocate handle.*errno: 12"), NpuReason.NO_RAM),
    (re.compile(r"failed to allocate handle.*errno: 24|Too many open files"), NpuReason.FD_LIMIT),
    (re.compile(r"matmul.*run failed"), NpuReason.RUN_FAILED),
    (re.compile(r"invalid rkllm model|invalid magic|load model file error|target_platform does not match"),
     NpuReason.MODEL_REFUSED),
)  # fmt: skip
_TELLING = (
    re.compile(r"failed to malloc npu memory"),
    re.compile(r"failed to allocate handle"),
    re.compile(r"^E "),
    re.compile(r"rknn_init fail|^terminate called|^\s*what\(\): "),
)
# Lines after which a model is not loaded, whatever rkllm_init returned: 1.1.x answered 0 (airockchip/rknn-llm 129).
_INIT_FAILED = re.compile(r"rknn_init fail|rkllm_init failed|failed to malloc npu memory|load model file error")


def name_refusal(reason: NpuReason, lines: tuple[str, ...]) -> NpuReason:
    """A better reason than `reason` if the lines give one away."""
    if reason not in {NpuReason.INIT_FAILED, NpuReason.RUN_FAILED}:
        return reason
    for pattern, cause in _CLUES:
        if any(pattern.search(line) for line in lines):
            return cause
    return reason


def says_init_failed(lines: tuple[str, ...]) -> bool:
    """Whether the library said so, even if it returned 0."""
    return any(_INIT_FAILED.search(line) for line in lines)


def telling_line(lines: tuple[str, ...]) -> str:
    """The line to quote: the most telling one, or the last error, or nothing."""
    for pattern in _TELLING:
        for line in reversed(lines):
            if pattern.search(line):
                return line
    return ""


def diagnosis_of(error: NpuError | WorkerDied | WorkerHung, board: Board | None) -> Diagnosis | None:
    """What the rule book reads in the lines, with the signal that ended the worker and the board as it was before
    the load. None where there is neither line nor signal."""
    from rk_gemma_runtime.diagnosis import diagnose

    status = error.status if isinstance(error, WorkerDied) else None
    signal = -status if status is not None and status < 0 else None
    return diagnose(error.lines, signal=signal, board=board) if error.lines or signal else None
