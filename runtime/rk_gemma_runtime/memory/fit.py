"""Does it fit? The allocations of a load, tried one by one on a described board."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import DOMAINS, Hold
from rk_gemma_runtime.memory.domains import PAGE, Domain

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.need import Buffer, Need

EFAULT, ENOMEM, EINVAL = 14, 12, 22


@dataclass(frozen=True)
class Refusal:
    """The first allocation that fails: its cause of the rule book, the kernel's errno, the buffer, its domain."""

    cause: str
    errno: int
    buffer: Buffer | None = None
    domain: int = 0


class Space:
    """The I/O addresses of a board's NPU, with what others hold there."""

    def __init__(self, board: Board, size_aligned: bool) -> None:
        self._one_domain = board.npu.multi_domain is False
        self.domains = [Domain(size_aligned) for _ in range(DOMAINS)]
        for hold in board.npu.holds:
            for size in hold.buffers:
                self.domain(hold.domain).allocate(size, hold.by or "others")

    def domain(self, number: int) -> Domain:
        """Return a domain; a kernel without domain support answers every number with its only one."""
        return self.domains[0 if self._one_domain else number]


def load(need: Need, board: Board, base_domain: int, space: Space) -> Refusal | None:
    """Place a model's buffers in `space`, then its own memory. None: it loads. What is not known is not checked."""
    if board.npu.iommu is False:
        return _contiguous(need, board, base_domain) or _host(need, board)
    pages = 0
    for buffer in need.buffers:
        number = base_domain + buffer.step
        if number >= DOMAINS:
            return Refusal("npu_malloc_iova_exhausted", EINVAL, buffer, number)
        pages += -(-buffer.bytes // PAGE) * PAGE
        if board.memory.available is not None and pages > board.memory.available:
            return Refusal("npu_malloc_no_ram", ENOMEM, buffer, number)
        if space.domain(number).allocate(buffer.bytes, buffer.what) is None:
            return Refusal("npu_malloc_iova_exhausted", EFAULT, buffer, number)
    return _host(need, board)


def _contiguous(need: Need, board: Board, base_domain: int) -> Refusal | None:
    """Place the buffers without an IOMMU: every one is contiguous memory, and there are no domains."""
    area, taken = board.memory.cma, 0
    for buffer in need.buffers:
        taken += -(-buffer.bytes // PAGE) * PAGE
        if base_domain + buffer.step or (area is not None and taken > area):
            return Refusal("iommu_disabled", EINVAL, buffer, base_domain + buffer.step)
    return None


def _host(need: Need, board: Board) -> Refusal | None:
    memory = board.memory
    if memory.available is None:
        return None
    pages = sum(-(-buffer.bytes // PAGE) * PAGE for buffer in need.buffers)
    if pages + need.host > memory.available + (memory.swap_free or 0):
        return Refusal("oom_killed", 0)
    return None


def with_holds(board: Board, need: Need, base_domain: int) -> Board:
    """Return the board with another model already loaded: it holds its buffers, and its memory is gone."""
    holds = list(board.npu.holds)
    for buffer in need.buffers:
        holds.append(Hold(base_domain + buffer.step, (buffer.bytes,), "the other model"))
    available = board.memory.available
    left = None if available is None else max(0, available - need.total)
    return replace(
        board,
        npu=replace(board.npu, holds=tuple(sorted(holds, key=lambda hold: hold.domain))),
        memory=replace(board.memory, available=left),
    )
