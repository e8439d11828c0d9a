"""What would make it fit: changes that were planned again, not advice from a list."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import GIB, NEWEST_DRIVER, UNKNOWN, WANTED_FDS, usual_available
from rk_gemma_runtime.memory.dtypes import dtype_of
from rk_gemma_runtime.memory.plan import NO, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.plan import Plan
    from rk_gemma_runtime.memory.request import Request

UNMASK = "docker run --security-opt systempaths=unconfined --security-opt apparmor=unconfined"
RAISE_GROUP = "MemoryMax= of the systemd unit, or docker run --memory"
USUAL_NODE = "/dev/dri/renderD129"
LARGEST = "ps -eo rss,comm --sort=-rss | head"
RAM_SIZES = (4, 8, 16, 32)


def cures(plan: Plan) -> list[str]:
    """Return changes that each make the load possible on their own; every one was re-planned. Empty unless the
    verdict is `no`."""
    if plan.verdict != NO:
        return []
    return [text for text, request, board in _changes(plan) if make_plan(request, board).verdict != NO]


def _changes(plan: Plan) -> Iterator[tuple[str, Request, Board]]:
    request, board = plan.request, plan.board
    if board.npu.driver != NEWEST_DRIVER:
        newer = replace(board.npu, driver=NEWEST_DRIVER, iova_alignment=None, node=board.npu.node or USUAL_NODE)
        yield f"a kernel with rknpu driver {NEWEST_DRIVER}", request, replace(board, npu=newer)
    if board.npu.driver and board.npu.node == "":
        there = replace(board, npu=replace(board.npu, node=USUAL_NODE))
        yield "a device node of the NPU (`rk-gemma doctor` says what keeps it away)", request, there
    if request.dtype.group:
        yield "weights in w8a8", replace(request, dtype=dtype_of("w8a8")), board
    if board.npu.holds:
        yield "ending the other programs on the NPU", request, replace(board, npu=replace(board.npu, holds=()))
    if board.npu.iommu is False:
        yield "switching the NPU's IOMMU on", request, replace(board, npu=replace(board.npu, iommu=True))
    if board.npu.access is False:
        yield "access to the NPU's node", request, replace(board, npu=replace(board.npu, access=True))
    hard = board.limits.nofile_hard
    if hard is not None and hard < WANTED_FDS:
        raised = replace(board, limits=replace(board.limits, nofile_hard=WANTED_FDS))
        yield f"LimitNOFILE={WANTED_FDS} in the service's unit, or `ulimit -Hn {WANTED_FDS}` as root", request, raised
    if request.toolkit and request.runtime:
        yield f"librkllmrt {request.toolkit} or newer", replace(request, runtime=request.toolkit), board
    if board.npu.platform == UNKNOWN and board.npu.driver and not board.soc:  # the driver is there, the tree hidden
        shown = replace(board, npu=replace(board.npu, platform=request.platform))
        yield f"showing the container the device tree ({UNMASK})", request, shown
    if 0 < plan.largest_context < request.context:
        yield f"--context {plan.largest_context}", replace(request, context=plan.largest_context), board
    if plan.other_domain is not None and plan.other_domain != request.base_domain:
        yield f"--npu-domain {plan.other_domain}", replace(request, base_domain=plan.other_domain), board
    yield from _more_ram(request, board)


def _more_ram(request: Request, board: Board) -> Iterator[tuple[str, Request, Board]]:
    total, available = board.memory.total, board.memory.available
    if total is None or available is None:
        return
    if board.memory.limit is not None:
        free = replace(board, memory=replace(board.memory, available=usual_available(total), limit=None))
        yield f"a higher limit of the control group ({RAISE_GROUP})", request, free
        return
    idle = replace(board, memory=replace(board.memory, available=usual_available(total)))
    if available < usual_available(total) and make_plan(request, idle).verdict != NO:
        yield f"freeing memory (other programs hold it: {LARGEST})", request, idle
        return
    for size in RAM_SIZES:
        # A board with 8 GB shows a little less.
        if size * GIB > total * 1.1:
            memory = replace(board.memory, total=size * GIB, available=usual_available(size * GIB))
            larger = replace(board, memory=memory)
            if make_plan(request, larger).verdict != NO:
                yield f"a board with {size} GB", request, larger
                return
