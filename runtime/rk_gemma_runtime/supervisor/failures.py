"""From how a worker failed to the error that says why: with the library's lines and what the rule book reads in
them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rk_gemma_runtime import errors, wire
from rk_gemma_runtime.errors import EngineError, NpuError, NpuReason, WorkerDied, WorkerHung
from rk_gemma_runtime.supervisor.refusal import diagnosis_of, telling_line

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.supervisor.process import Process

Lost = TypeVar("Lost", NpuError, WorkerDied, WorkerHung)


class Failures:
    """Of one worker. `kind` is npu or cpu; `board` as it was before the load."""

    def __init__(self, process: Process, kind: str, board: Board | None) -> None:
        self._process, self._kind, self._board = process, kind, board

    def death(self) -> WorkerDied:
        """The worker has closed its end. Reaps it."""
        return self._diagnosed(self._process.died())

    def hang(self, silence_s: float, answers_ping: bool) -> WorkerHung:
        """It was silent for too long, and has been killed."""
        state = "its engine makes no progress" if answers_ping else "the whole process is stuck"
        text = f"no sign of progress for {silence_s:g} s ({state}); the worker was killed"
        return self._diagnosed(WorkerHung(text, self._process.settled_lines()))

    def refusal(self, message: wire.Failed) -> EngineError:
        """It reported that a job, or the load, failed."""
        kind: Any = getattr(errors, message.error, EngineError)
        mark = wire.mark_of(message.number)
        lines = self._process.settled_lines(mark)
        if not issubclass(kind, NpuError):
            return EngineError(message.message)
        reason, fresh = NpuReason(message.reason), self._process.fresh_lines(mark)
        quoted = telling_line(fresh) if reason in {NpuReason.INIT_FAILED, NpuReason.RUN_FAILED} else ""
        text = f"{message.message}: {quoted}" if quoted else message.message
        refused: NpuError = kind(text, reason, lines)
        return self._diagnosed(refused)

    def _diagnosed(self, error: Lost) -> Lost:
        if self._kind == "npu":
            error.diagnosis = diagnosis_of(error, self._board)
        if isinstance(error, NpuError) and error.named is not None:
            error.reason = NpuReason.of(error.named.cause, error.reason)
        return error
