"""Opening the NPU: the plan first, then the load, and each remedy that the runtime has, once.

The order: more file descriptors (always, it costs nothing), another IOMMU domain, a smaller context where the user
allowed it. After that the CPU is next, which is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.board import this_board
from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.errors import REMEDIES, NpuError, NpuReason, WorkerDied, WorkerHung
from rk_gemma_runtime.events import Applied
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.plan import NO, make_plan
from rk_gemma_runtime.memory.reasons import check_board as standing
from rk_gemma_runtime.memory.request import CONTEXT_STEP, request_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.memory.plan import Plan
    from rk_gemma_runtime.memory.reasons import Reason
    from rk_gemma_runtime.supervisor import Backend, Source
    from rk_gemma_runtime.weights import Weights

    Start = Callable[[Source], Backend]

LEAST_CONTEXT = 256
NO_ADDRESSES = {"npu_malloc_iova_exhausted"}
NO_MEMORY = {"npu_malloc_no_ram", "oom_killed"}
TO_SET_UP = {NpuReason.PERMISSION, NpuReason.DRIVER_MISSING, NpuReason.IOMMU_DISABLED, NpuReason.FD_LIMIT,
             NpuReason.UNKNOWN_PLATFORM}  # fmt: skip
OTHERS = "stop the other programs on the NPU (`rk-gemma doctor` names them)"
FORCE = "--force tries all the same"


@dataclass
class NpuLoader:
    """Loads a bundle on the NPU. `board` None is this one; `force` loads against the plan; `shrink` allows a smaller
    context. A domain that worked is where the next load begins; a context is asked for in full each time. Not
    thread-safe."""

    bundle: Bundle
    board: Board | None = None
    force: bool = False
    shrink: bool = False
    on_remedy: Callable[[Applied], object] = lambda applied: None
    applied: list[Applied] = field(default_factory=list)
    _domain: int | None = None
    _weights: Weights | None = None

    def open(self, source: Source, start: Start) -> Backend:
        """Load `source`, changed where it has to be, with `start`. Blocks.

        Raises what `start` raises, or NpuError with the plan's reason where nothing was tried; WeightsError for files
        that are not what the manifest says.
        """
        if self._domain is not None:
            source = replace(source, setup=replace(source.setup, domain=self._domain))
        board = self.board or this_board()
        setup = replace(source.setup, device=board.npu.node or "", needs=self._needed(source))
        attempt = _Attempt(self, replace(source, setup=setup, board=board))
        try:
            backend = self._try(attempt, start)
        finally:
            attempt.first = None  # with its traceback it would keep alive what has failed
        self._domain = backend.source.setup.domain
        self._tell([*_descriptors(backend), *attempt.changes])
        return backend

    def _needed(self, source: Source) -> str:
        """Hold the files against the manifest, once; which library they need. Raises WeightsError."""
        npu = self.bundle.manifest.npu
        if self.force or npu is None or npu.format != "rkllm":
            return ""
        if self._weights is None:
            from rk_gemma_runtime.weights import read_weights  # late: the simulator's weights need none of it

            weights = read_weights(self.bundle, [Path(file) for _, file in source.setup.adapters])
            weights.check()
            self._weights = weights
        return self._weights.toolkit

    def _try(self, attempt: _Attempt, start: Start) -> Backend:
        while True:
            try:
                return attempt.load(start)
            except (NpuError, WorkerDied, WorkerHung) as error:
                if not attempt.mend(error):
                    raise attempt.first_error() from None

    def _tell(self, changes: list[Applied]) -> None:
        for change in changes:
            if change.remedy != "nofile" and change not in self.applied:  # every load raises that limit
                self.on_remedy(change)
        self.applied += [change for change in changes if change not in self.applied]


class _Attempt:
    """One load with what has been changed for it so far."""

    def __init__(self, loader: NpuLoader, source: Source) -> None:
        self._loader, self._source = loader, source
        self.changes: list[Applied] = []
        self._plan: Plan | None = None
        self.first: NpuError | WorkerDied | WorkerHung | None = None

    @property
    def _context(self) -> int:
        return self._source.setup.context

    @property
    def _domain(self) -> int:
        return self._source.setup.domain

    def load(self, start: Start) -> Backend:
        """Plan, then load."""
        assert self._source.board is not None
        request = request_for(self._loader.bundle, self._context, self._domain)
        self._plan = plan = make_plan(request, self._source.board) if request else None
        if not self._loader.force:
            self._refuse(self._source.board)
        return start(replace(self._source, prompt_token_s=1 / plan.speed.prefill if plan else 0.0))

    def _refuse(self, board: Board) -> None:
        plan, npu = self._plan, self._loader.bundle.manifest.npu
        if plan is not None and plan.verdict == NO:
            raise refusal(plan.reasons[0], cures(plan))
        if plan is None and npu is not None:  # what needs no shape to be known
            wrong = standing(npu.platform, self._context, npu.max_context, board)
            if wrong:
                raise refusal(wrong[0], [])

    def mend(self, error: NpuError | WorkerDied | WorkerHung) -> bool:
        """Change what the next try uses. False: there is nothing left to change."""
        self.first = self.first or error
        change = self._change(error.cause, {change.remedy for change in self.changes})
        if change is not None:
            self.changes.append(change)
        return change is not None

    def first_error(self) -> NpuError | WorkerDied | WorkerHung:
        """What was refused first, with what did not help."""
        assert self.first is not None
        if self.changes:
            words = ", ".join(change.text for change in self.changes)
            self.first.args = (f"{self.first}; {words} did not help",)
            if isinstance(self.first, NpuError) and any(change.remedy == "domain" for change in self.changes):
                self.first.advise(self._beyond())
        return self.first

    def _beyond(self) -> str:
        """Advise what was not tried."""
        other = self._domain + 1
        return f"{OTHERS}, or try --npu-domain {other} or above" if other < DOMAINS else OTHERS

    def _set(self, **changes: int) -> None:
        self._source = replace(self._source, setup=replace(self._source.setup, **changes))  # type: ignore[arg-type]

    def _change(self, cause: str, tried: set[str]) -> Applied | None:
        if cause in NO_ADDRESSES and "domain" not in tried:
            before, other = self._domain, self._other_domain()
            if other is not None:
                self._set(domain=other)
                return Applied("domain", f"IOMMU domain {other} in place of {before}")
        if cause in NO_MEMORY and self._loader.shrink and "context" not in tried:
            room, smaller = self._context, self._smaller()
            if smaller:
                self._set(context=smaller)
                return Applied("context", f"a context of {smaller} in place of {room}")
        return None

    def _other_domain(self) -> int | None:
        """The plan's, or else the one behind all that the model takes: what others hold is not known."""
        plan = self._plan
        if plan is not None and plan.verdict == NO:
            return plan.other_domain
        steps = max(buffer.step for buffer in plan.need.buffers) if plan else 0
        other = self._domain + steps + 1
        return other if other + steps < DOMAINS else None

    def _smaller(self) -> int:
        planned = self._plan.largest_context if self._plan else 0
        size = planned if 0 < planned < self._context else self._context // 2
        size -= size % CONTEXT_STEP
        return size if size >= LEAST_CONTEXT else 0


def _descriptors(backend: Backend) -> list[Applied]:
    """What the worker did before it loaded."""
    before, now = backend.loaded.files_before, backend.loaded.files
    return [Applied("nofile", f"{now} open files in place of {before}")] if before < now else []


def refusal(reason: Reason, would: list[str]) -> NpuError:
    """A plan's `no` as an error; it says what would do."""
    named = NpuReason.of(reason.cause, NpuReason.INIT_FAILED)
    # What these need is a command, not another plan.
    known = f"{REMEDIES[named]}; " if named in TO_SET_UP else f"{' or '.join(would)} would do; " if would else ""
    return NpuError(f"it would not load on the NPU: {reason.text}", named, remedy=known + FORCE)
