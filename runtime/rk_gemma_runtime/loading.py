"""Opening the NPU: the plan first, then the load, and each remedy that the runtime has, once.

The order: more file descriptors (always, it costs nothing), another IOMMU domain, a smaller context where the user
allowed it. After that the CPU is next, which is not decided here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from rk_gemma_runtime.board import this_board
from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.errors import NpuError, NpuReason, WorkerDied
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.plan import CONTEXT_STEP, NO, make_plan, request_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.errors import EngineError
    from rk_gemma_runtime.memory.plan import Plan
    from rk_gemma_runtime.supervisor import Backend

LEAST_CONTEXT = 256
WANTED_FDS = 102_400
NO_ADDRESSES = {"npu_malloc_iova_exhausted"}
NO_MEMORY = {"npu_malloc_no_ram", "oom_killed"}


@dataclass(frozen=True)
class Applied:
    """A remedy that was applied: which one, and what was changed to what, in words."""

    remedy: Literal["nofile", "domain", "context"]
    text: str


@dataclass
class NpuLoader:
    """Loads a bundle on the NPU and remembers what it took. `context` and `domain` are what the last load used;
    `board` None is this one; `force` loads against the plan; `shrink` allows a smaller context. Not thread-safe."""

    bundle: Bundle
    context: int
    domain: int
    board: Board | None = None
    force: bool = False
    shrink: bool = False
    on_remedy: Callable[[Applied], None] = lambda applied: None
    applied: list[Applied] = field(default_factory=list)
    plan: Plan | None = None

    def open(self, make: Callable[[int, int], Backend]) -> Backend:
        """`make(context, domain)` starts a worker and loads. Blocks. Raises what it raises, or NpuError with the
        plan's reason where nothing was tried."""
        board = self.board or this_board()
        asked, changes = (self.context, self.domain), self._descriptors(board)
        while True:
            try:
                backend = self._once(make, board)
            except (NpuError, WorkerDied) as error:
                change = self._remedy(cause_of(error), {c.remedy for c in changes})
                if change is None:
                    self.context, self.domain = asked
                    raise with_tried(error, changes) from None
                changes.append(change)
            else:
                self._tell(changes)
                return backend

    def _once(self, make: Callable[[int, int], Backend], board: Board) -> Backend:
        self.plan = plan = self._planned(board)
        if plan is not None and plan.verdict == NO and not self.force:
            raise refusal(plan)
        return make(self.context, self.domain)

    def _tell(self, changes: list[Applied]) -> None:
        self.applied += [change for change in changes if change not in self.applied]
        for change in changes:
            if change.remedy != "nofile":  # every load does that
                self.on_remedy(change)

    def _planned(self, board: Board) -> Plan | None:
        request = request_for(self.bundle, self.context, self.domain)
        return None if request is None else make_plan(request, board)

    def _descriptors(self, board: Board) -> list[Applied]:
        """The worker raises its soft limit before it loads."""
        soft, hard = board.limits.nofile_soft, board.limits.nofile_hard
        if soft is None or hard is None or soft >= min(hard, WANTED_FDS):
            return []
        return [Applied("nofile", f"{min(hard, WANTED_FDS)} open files in place of {soft}")]

    def _remedy(self, cause: str, tried: set[str]) -> Applied | None:
        """Change what the next try uses. None: there is nothing left to change."""
        if cause in NO_ADDRESSES and "domain" not in tried:
            before, other = self.domain, self._other_domain()
            if other is not None:
                self.domain = other
                return Applied("domain", f"IOMMU domain {other} in place of {before}")
        if cause in NO_MEMORY and self.shrink and "context" not in tried:
            room, smaller = self.context, self._smaller()
            if smaller:
                self.context = smaller
                return Applied("context", f"a context of {smaller} in place of {room}")
        return None

    def _other_domain(self) -> int | None:
        """The plan's, or else the next one: what others hold is not known without asking the driver."""
        if self.plan is not None and self.plan.verdict == NO:
            return self.plan.other_domain
        return self.domain + 1 if self.domain + 1 < DOMAINS else None

    def _smaller(self) -> int:
        planned = self.plan.largest_context if self.plan else 0
        size = planned if 0 < planned < self.context else self.context // 2
        size -= size % CONTEXT_STEP
        return size if size >= LEAST_CONTEXT else 0

    def trees(self) -> list[dict[str, str]]:
        """What was applied, for JSON."""
        return [asdict(applied) for applied in self.applied]


def refusal(plan: Plan) -> NpuError:
    """The plan's `no` as an error; it says what would do."""
    first = plan.reasons[0]
    would = cures(plan)
    remedy = f"{' or '.join(would)} would do; --force loads all the same" if would else "--force loads all the same"
    return NpuError(f"it would not load on the NPU: {first.text}", NpuReason(first.cause), remedy=remedy)


def with_tried(error: NpuError | WorkerDied, changes: list[Applied]) -> NpuError | WorkerDied:
    """The error, and what did not help."""
    words = ", ".join(change.text for change in changes if change.remedy != "nofile")
    if words:
        error.args = (f"{error}; {words} did not help",)
    return error


def cause_of(error: EngineError) -> str:
    """The cause that the rule book reads in the library's lines, else the one that the error itself has, or ""."""
    if error.named is not None:
        return error.named.cause
    return error.reason.value if isinstance(error, NpuError) else ""
