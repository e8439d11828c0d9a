"""From the library's last lines to the one that a person should read. What they mean is the rule book's to say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import WorkerDied

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.diagnosis import Diagnosis
    from rk_gemma_runtime.errors import NpuError, WorkerHung

_TELLING = (
    re.compile(r"failed to malloc npu memory"),
    re.compile(r"failed to allocate handle"),
    re.compile(r"^E "),
    re.compile(r"rknn_init fail|^terminate called|^\s*what\(\): "),
)


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
