"""Whether the NPU is tried: yes, not before some time, or not until somebody asks for it.

A refused load, or too many breakdowns within a while, opens the breaker: answers come from the CPU. After a pause,
longer each time, the NPU is tried again (recovery.py).
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import NpuError, NpuReason, WeightsError, WorkerDied, WorkerHung
from rk_gemma_runtime.events import Degraded

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.errors import EngineError
    from rk_gemma_runtime.options import Limits

CPU_ADVICE = "run with --debug to see every line of the library"
JITTER = 0.1
# What another try cannot change: somebody has to install, export or configure something first.
LASTING = {
    NpuReason.NO_LIBRARY, NpuReason.BAD_LIBRARY, NpuReason.MISSING_SHARED_LIBRARY, NpuReason.GLIBC_TOO_OLD,
    NpuReason.NO_WEIGHTS, NpuReason.MODEL_REFUSED, NpuReason.DRIVER_TOO_OLD, NpuReason.DRIVER_MISSING,
    NpuReason.PERMISSION, NpuReason.IOMMU_DISABLED, NpuReason.PLATFORM_MISMATCH, NpuReason.CONTEXT_TOO_LONG,
    NpuReason.NOT_IN_VERSION, NpuReason.FD_LIMIT, NpuReason.UNKNOWN_PLATFORM, NpuReason.MODEL_VERSION,
}  # fmt: skip


class Breaker:
    """Counts. Not thread-safe: the one who holds it locks."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._breakdowns: list[float] = []
        self._tries = 0
        self.refused: Degraded | None = None

    def break_down(self, error: EngineError) -> Degraded:
        """An answer was lost with its worker. One too many is a refusal."""
        now, limits = self._clock(), self._limits
        self._breakdowns = [t for t in self._breakdowns if now - t < limits.breakdown_s] + [now]
        if len(self._breakdowns) >= max(1, limits.breakdowns):
            return self.refuse(error)
        return describe(error)

    def refuse(self, error: EngineError | WeightsError) -> Degraded:
        """A load was refused. Says when the next one is."""
        pause = self._pause(error)
        at = None if pause is None else time.time() + pause
        self.refused = replace(describe(error), retry_at=at)
        self._tries += 1
        return self.refused

    @property
    def pause_s(self) -> float | None:
        """Seconds until the next try; None if there is none."""
        at = self.refused.retry_at if self.refused else None
        return None if at is None else max(0.0, at - time.time())

    def close(self) -> None:
        """The NPU works, or is to be tried at once."""
        self._breakdowns, self._tries, self.refused = [], 0, None

    def _pause(self, error: EngineError | WeightsError) -> float | None:
        limits = self._limits
        lasting = isinstance(error, WeightsError) or (isinstance(error, NpuError) and error.reason in LASTING)
        if lasting or not limits.retry_s:
            return None
        pause: float = min(limits.retry_most_s, limits.retry_s * 2 ** min(self._tries, 30))
        return pause * random.uniform(1 - JITTER, 1 + JITTER)


def describe(error: EngineError | WeightsError) -> Degraded:
    """The cause, the line that quotes the library, and the remedy: the rule book's where it knows them."""
    if isinstance(error, WeightsError):
        return Degraded(error.cause, str(error), error.remedy)
    tree = error.diagnosis.tree() if error.diagnosis else None
    if isinstance(error, NpuError):
        return Degraded(error.cause, str(error), error.remedy, tree)
    kind = "hang" if isinstance(error, WorkerHung) else "crash" if isinstance(error, WorkerDied) else "other"
    remedy = error.named.remedy if error.named else CPU_ADVICE
    return Degraded(error.cause or kind, str(error), remedy, tree)
