"""The plan: will this model load on this board, why not, and what would. Pure: facts in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.memory import fit
from rk_gemma_runtime.memory.doubts import doubts
from rk_gemma_runtime.memory.gguf import gguf_bytes
from rk_gemma_runtime.memory.models import of_bundle
from rk_gemma_runtime.memory.need import MIB
from rk_gemma_runtime.memory.pace import at_clocks
from rk_gemma_runtime.memory.reasons import Reason, check_board, explain_refusal
from rk_gemma_runtime.memory.request import CONTEXT_STEP, request_for
from rk_gemma_runtime.memory.speed import CPU_BYTES_PER_S, speed_of
from rk_gemma_runtime.memory.toolkits import check_toolkit

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.memory.fit import Refusal, Space
    from rk_gemma_runtime.memory.need import Need
    from rk_gemma_runtime.memory.request import Request
    from rk_gemma_runtime.memory.shape import Shape
    from rk_gemma_runtime.memory.speed import Speed

FITS, TIGHT, NO = "fits", "tight", "no"
CPU_WORK_BYTES = 300 * MIB  # llama.cpp's buffers beside weights and KV cache
CPU_QUANT = "Q8_0"  # the smallest type that `rk-gemma export` writes


@dataclass(frozen=True)
class CpuChoice:
    """GGUF weights that fit: type, length of the file, RAM with context and working buffers."""

    quant: str
    file: int
    ram: int

    @property
    def decode(self) -> float:
        """Predict tokens/s: llama.cpp reads the file once per token."""
        return CPU_BYTES_PER_S / self.file


@dataclass(frozen=True)
class Plan:
    """`reasons` with the cause that decides first; `space` as far as it was placed; `largest_context` 0 if none fits;
    `speed` with clocks pinned, `now` with the board's clocks as they are; `other_domain` a first IOMMU domain that
    would fit where the asked one does not."""

    request: Request
    board: Board
    need: Need
    verdict: str
    reasons: tuple[Reason, ...]
    space: Space
    largest_context: int
    speed: Speed
    now: Speed
    cpu: CpuChoice | None
    other_domain: int | None


def make_plan(request: Request, board: Board) -> Plan:
    """Raises UsageError if the weight type does not go with the model."""
    shape = request.shape
    need = request.need
    speed = speed_of(shape, request.dtype, release=request.release)
    refusal, space, sure = _place(request, need, board)
    reasons = tuple(_reasons(request, need, board, refusal, sure))
    return Plan(
        request=request,
        board=board,
        need=need,
        verdict=_verdict(reasons),
        reasons=reasons,
        space=space,
        largest_context=_largest_context(request, board),
        speed=speed,
        now=at_clocks(speed, board.clocks),
        cpu=_cpu_choice(request, board),
        other_domain=_other_domain(request, need, board) if refusal else None,
    )


def carried_out(plan: Plan) -> Plan:
    """Return the plan as a load carries it out: in another IOMMU domain where the asked one has no room."""
    if plan.verdict != NO or plan.other_domain is None:
        return plan
    other = make_plan(replace(plan.request, base_domain=plan.other_domain), plan.board)
    return plan if other.verdict == NO else other


def plan_bundle(bundle: Bundle, board: Board, context: int = 0, base_domain: int = 0) -> Plan | None:
    """Plan `request_for`; None if that is None."""
    request = request_for(bundle, context, base_domain)
    return None if request is None else make_plan(request, board)


def _verdict(reasons: tuple[Reason, ...]) -> str:
    if any(reason.blocks for reason in reasons):
        return NO
    return TIGHT if reasons else FITS


def _place(request: Request, need: Need, board: Board) -> tuple[Refusal | None, Space, bool]:
    """Try the load on the board; `sure` is False if it depends on an alignment that is not known. Then it is refused
    only if both alignments refuse."""
    alignment = board.npu.alignment
    trials = []
    for size_aligned in (True, False) if alignment is None else (alignment == "size",):
        space = fit.Space(board, size_aligned)
        trials.append((fit.load(need, board, request.base_domain, space), space))
    outcomes = {refusal.cause if refusal else None for refusal, _ in trials}
    refusal, space = trials[-1]
    if refusal is not None and refusal.cause == "npu_malloc_no_ram" and _swap_may_help(need, board):
        refusal = None  # a doubt: the kernel can push others out
    return refusal, space, len(outcomes) == 1


def _reasons(request: Request, need: Need, board: Board, refusal: Refusal | None, sure: bool) -> list[Reason]:
    found = check_board(request.platform, request.context, request.most, board)
    found += check_toolkit(request.toolkit, request.runtime)
    if refusal is not None:
        found.append(explain_refusal(refusal, request, need, board))
    elif not sure and not any(reason.blocks for reason in found):
        driver = board.npu.driver or "of this board"
        found.append(
            Reason(
                "driver_too_old",
                f"whether driver {driver} can map a buffer of {need.largest} bytes is not known;"
                " `rk-gemma doctor --probe` on the board tells, and driver 0.9.8 can",
            )
        )
    if not any(reason.blocks for reason in found):
        found += doubts(request.dtype, need, board)
    return sorted(found, key=lambda reason: not reason.blocks)


def _swap_may_help(need: Need, board: Board) -> bool:
    memory = board.memory
    if memory.total is not None and need.npu >= memory.total:  # they are never swapped themselves
        return False
    return bool(memory.swap_free) and need.total <= (memory.available or 0) + (memory.swap_free or 0)


def _fits(request: Request, board: Board) -> bool:
    return _place(request, request.need, board)[0] is None


def _largest_context(request: Request, board: Board) -> int:
    """Halve the range: a longer context takes more memory and nothing else."""
    if check_board(request.platform, 0, request.most, board):
        return 0
    if _fits(replace(request, context=request.most), board):
        return request.most
    low, high = 0, request.most // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(replace(request, context=middle * CONTEXT_STEP), board):
            low = middle
        else:
            high = middle - 1
    return low * CONTEXT_STEP


def _other_domain(request: Request, need: Need, board: Board) -> int | None:
    for number in range(DOMAINS):
        if _place(replace(request, base_domain=number), need, board)[0] is None:
            return number
    return None


def _cpu_choice(request: Request, board: Board) -> CpuChoice | None:
    """Take the weights that the bundle has, or those that an export would write; None if they do not fit."""
    shape, available = request.shape, board.memory.available
    quant, size = request.cpu or (CPU_QUANT, gguf_bytes(shape, CPU_QUANT))
    ram = _cpu_ram(shape, request.context, size)
    return CpuChoice(quant, size, ram) if available is None or ram <= available else None


def cpu_bytes(bundle: Bundle) -> int:
    """Predict the RAM for a bundle's GGUF weights, its whole context and llama.cpp's buffers; 0 without weights."""
    manifest = bundle.manifest
    if manifest.cpu is None:
        return 0
    return _cpu_ram(of_bundle(manifest), manifest.context, manifest.cpu_bytes)


def _cpu_ram(shape: Shape | None, context: int, size: int) -> int:
    return size + (shape.kv_bytes_per_token * context if shape else 0) + CPU_WORK_BYTES
