"""Every Gemma against boards with 4, 8, 16 and 32 GB: which type of weights loads, if any."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.facts import GIB, usual_available
from rk_gemma_runtime.memory.dtypes import dtype_of, fitting
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.pace import notes
from rk_gemma_runtime.memory.plan import NO, make_plan
from rk_gemma_runtime.memory.request import Request
from rk_gemma_runtime.printable import WIDTH, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.plan import Plan

NAME = 14  # columns
RAM_GB = (4, 8, 16, 32)


Plans = dict[str, dict[str, "Plan"]]


def matrix(context: int, dtype: str, board: Board, one: bool = False) -> Plans:
    """Plan every model for every board: `board` with each amount of RAM, or as it is if it is the `one` that
    counts."""
    own = {board.name or board.title or "this board": board}
    boards = own if one else {f"{ram} GB": _with_ram(board, ram) for ram in RAM_GB}
    requests = {name: _request(name, context, dtype) for name in SIZES}
    return {
        name: {label: make_plan(request, b) for label, b in boards.items()} if request else {}
        for name, request in requests.items()
    }


def _request(name: str, context: int, dtype: str) -> Request | None:
    """Make the request; None if the type's group does not divide the model's layers."""
    shape, weights = find_shape(name), dtype_of(dtype)
    if weights.group and weights.name not in fitting(shape):
        return None
    request = Request(shape, weights)
    return replace(request, context=min(context, request.most))


def _with_ram(board: Board, ram: int) -> Board:
    available = usual_available(ram * GIB)
    return replace(board, memory=replace(board.memory, total=ram * GIB, available=available))


def matrix_lines(plans: Plans) -> Iterator[str]:
    """Write the table: verdict and predicted speed, or what the CPU can take."""
    known = next(plan for row in plans.values() for plan in row.values())
    labels = next(list(row) for row in plans.values() if row)
    yield f"{known.request.dtype.name}, context {known.request.context}, driver {known.board.npu.driver or 'none'}"
    yield ""
    wide = (WIDTH - NAME) // max(4, len(labels))
    yield f"{'':<{NAME}}" + "".join(f"{label[: wide * 4]:>{wide}}" for label in labels)
    for name, row in plans.items():
        cells = [_cell(plan) for plan in row.values()] or ["not so"] * len(labels)
        yield f"{name:<{NAME}}" + "".join(f"{cell:>{wide}}" for cell in cells)
    causes = {plan.reasons[0].cause for row in plans.values() for plan in row.values() if plan.verdict == NO}
    yield ""
    if causes:
        yield from fold(f"no: {', '.join(sorted(causes))}", "", "    ")
    yield "NPU: fits or tight, and predicted tokens/s (clocks pinned)."
    yield "Where it says no: the CPU weights that fit instead."
    if not all(plans.values()):
        yield "not so: the groups of this type do not divide the model's layers."
    if len(labels) == 1 and notes(known.board):
        yield from fold(f"As this board is now, less: {'; '.join(notes(known.board))}.")


def _cell(plan: Plan) -> str:
    if plan.verdict != NO:
        return f"{plan.verdict} {plan.speed.decode:.1f}/s"
    return f"no, CPU {plan.cpu.quant}" if plan.cpu else "no, no CPU"


def matrix_tree(plans: Plans) -> dict[str, Any]:
    """Return the table as plain data."""
    return {
        name: {
            label: {
                "verdict": plan.verdict,
                "causes": [reason.cause for reason in plan.reasons],
                "largest_context": plan.largest_context,
                "decode_tokens_per_s": round(plan.speed.decode, 2),
                "cpu": plan.cpu.quant if plan.cpu else None,
            }
            for label, plan in row.items()
        }
        for name, row in plans.items()
    }
