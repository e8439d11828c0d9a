"""Why a plan says no: causes of the rule book, in one sentence each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import DOMAINS, GIB, UNKNOWN
from rk_gemma_runtime.board.versions import version_of
from rk_gemma_runtime.memory.need import MIB

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.fit import Refusal
    from rk_gemma_runtime.memory.need import Need
    from rk_gemma_runtime.memory.request import Request

WORKING_DRIVER = (0, 9, 0)
HALF_DOMAIN = 2 * GIB
SPARE_FDS = 64  # of the process itself


@dataclass(frozen=True)
class Reason:
    """`cause` is an id of the rule book; `blocks`: it cannot load."""

    cause: str
    text: str
    blocks: bool = False


def check_board(platform: str, context: int, most: int, board: Board) -> list[Reason]:
    """Check what needs no plan: weights for `platform`, with `context` of at most `most`, on this board."""
    npu, found = board.npu, []
    if npu.driver == "":
        found.append(Reason("driver_missing", "this kernel has no rknpu driver; use the vendor's kernel", True))
    elif npu.node == "":
        found.append(Reason("driver_missing", "there is no device node of the rknpu driver", True))
    elif npu.access is False:
        found.append(Reason("permission", f"{npu.node or 'the NPU node'} may not be opened by this user", True))
    version = version_of(npu.driver or "")
    if version and version < WORKING_DRIVER:
        text = f"driver {npu.driver} loads models and fails at every matmul; 0.9.8 is needed"
        found.append(Reason("driver_too_old", text, True))
    if npu.platform == UNKNOWN:
        text = "librkllmrt cannot tell the platform: the device tree is hidden or names no Rockchip chip"
        found.append(Reason("unknown_platform", text, True))
    elif npu.platform and platform and platform.upper() != npu.platform.upper():
        text = f"the weights are for {platform}, the board is {npu.platform}"
        found.append(Reason("platform_mismatch", text, True))
    if context > most:
        text = f"context {context} is over the limit of {most}"
        found.append(Reason("context_too_long", text, True))
    hard = board.limits.nofile_hard
    if npu.fds and hard is not None and npu.fds + SPARE_FDS > hard:
        text = f"{npu.fds} file descriptors are needed and the hard limit is {hard}"
        found.append(Reason("fd_limit", text, True))
    return found


def explain_refusal(refusal: Refusal, request: Request, need: Need, board: Board) -> Reason:
    """Put an allocation that fails into a sentence."""
    buffer, driver = refusal.buffer, board.npu.driver or "of this board"
    if refusal.cause == "oom_killed":
        return Reason("oom_killed", f"{_mib(need.total)} of RAM are needed and {_available(board)}", True)
    assert buffer is not None
    if refusal.cause == "npu_malloc_no_ram":
        return Reason("npu_malloc_no_ram", f"{_mib(need.npu)} of NPU buffers and {_available(board)}", True)
    if refusal.cause == "iommu_disabled":
        if refusal.domain:
            text = f"the NPU's IOMMU is off: there is no domain {refusal.domain}, only contiguous memory"
            return Reason("iommu_disabled", text, True)
        area = _mib(board.memory.cma)
        text = f"the NPU's IOMMU is off: {_mib(need.npu)} of contiguous memory are needed and CMA has {area}"
        return Reason("iommu_disabled", text, True)
    if buffer.bytes > HALF_DOMAIN and board.npu.alignment == "size":
        need_one = f"the weights need one of {_printed(buffer.bytes)}"
        text = f"driver {driver} cannot map a buffer above 2048 MiB and {need_one}"
        return Reason("driver_too_old", text, True)
    where = f"IOMMU domain {refusal.domain} has no range of {_printed(buffer.bytes)}"
    if refusal.domain >= DOMAINS:
        where = f"the model needs IOMMU domain {refusal.domain} and there are 0 to {DOMAINS - 1}"
    number = 0 if board.npu.multi_domain is False else refusal.domain
    others = next((hold.by for hold in board.npu.holds if hold.by and hold.domain == number), "")
    return Reason("npu_malloc_iova_exhausted", f"{where}{f' beside {others}' if others else ''}", True)


def _available(board: Board) -> str:
    swap = board.memory.swap_free or 0
    limit = board.memory.limit
    more = [f"and {_mib(swap)} of swap"] if swap else []
    more += [f"a control group allows {_mib(limit)} in all"] if limit is not None else []
    words = f" ({', '.join(more)})" if more else ""
    return f"{_mib(board.memory.available)} are available{words}"


def _mib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size // MIB} MiB"


def _printed(size: int) -> str:
    """The library's log has bytes."""
    return f"{size // MIB} MiB (`size: {size}` in a log)"
