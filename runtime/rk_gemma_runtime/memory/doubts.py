"""What may be wrong with a load that seems to fit: a plan with doubts is `tight`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import FEW_FDS, GIB, SMALL_BOARD
from rk_gemma_runtime.memory.need import MIB
from rk_gemma_runtime.memory.reasons import Reason

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.dtypes import Dtype
    from rk_gemma_runtime.memory.need import Need

# Less RAM than this left over is tight: the next program that starts takes it.
SPARE_BYTES = GIB // 4
MISC_NODE = "/dev/rknpu"
SMALL_WORDS = "Gemma 2B models were reported not to fit a board with 4 GB beside a desktop"


def doubts(dtype: Dtype, need: Need, board: Board) -> list[Reason]:
    """Collect reasons that do not block."""
    found = [
        _memory(need, board), _small(need, board), _descriptors(board), _node(board), _others(board),
        _grouped(dtype, need),
    ]  # fmt: skip
    return [reason for reason in found if reason is not None]


def _memory(need: Need, board: Board) -> Reason | None:
    available = board.memory.available
    if available is None:
        return Reason("npu_malloc_no_ram", f"free RAM is not known; {need.total // MIB} MiB are needed")
    left = (available - need.total) // MIB
    if left * MIB >= SPARE_BYTES:
        return None
    return Reason("npu_malloc_no_ram", f"{left} MiB of RAM would be left" if left >= 0 else "swap would be used")


def _small(need: Need, board: Board) -> Reason | None:
    total = board.memory.total
    if total is None or total >= SMALL_BOARD or need.total < total // 2:
        return None
    return Reason("npu_malloc_no_ram", f"{SMALL_WORDS}; {need.total // MIB} MiB are needed of {total // MIB}")


def _descriptors(board: Board) -> Reason | None:
    hard = board.limits.nofile_hard
    if board.npu.fds is not None or hard is None or hard >= FEW_FDS:
        return None
    return Reason("fd_limit", f"the hard limit of open files is {hard}, and NPU buffers take some")


def _node(board: Board) -> Reason | None:
    if board.npu.node != MISC_NODE:
        return None
    area = board.memory.cma
    size = "" if area is None else f", {area // MIB} MiB here"
    text = f"{MISC_NODE} is the driver's DMA-heap build: buffers come out of contiguous memory (CMA{size})"
    return Reason("iommu_disabled", text)


def _others(board: Board) -> Reason | None:
    # What is known of others' buffers was placed already.
    unknown = [user for user in board.npu.users if not any(hold.by.startswith(user) for hold in board.npu.holds)]
    if not unknown:
        return None
    who = ", ".join(unknown[:3])
    return Reason("npu_malloc_iova_exhausted", f"other programs use the NPU ({who}) and share its addresses")


def _grouped(dtype: Dtype, need: Need) -> Reason | None:
    if not dtype.group or not any(buffer.step for buffer in need.buffers):
        return None
    text = f"{dtype.name} of a model this large was reported to fail on a board (gemma-2-9b, runtime 1.1.1), for a"
    return Reason("npu_malloc_iova_exhausted", f"{text} reason not known; w8a8 loads")
