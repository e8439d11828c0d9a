"""Which Gemma would load here: what a doctor without a bundle can say for sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import CPU, ERROR, NPU, OK, Finding
from rk_gemma_runtime.memory.cures import LARGEST, RAISE_GROUP, cures
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.plan import CPU_QUANT, FITS, NO, carried_out, make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings
    from rk_gemma_runtime.memory.plan import Plan

MIB = 1 << 20


def check(r: Readings) -> Iterator[Finding]:
    """Plan every Gemma in w8a8 as `rk-gemma plan` does without a model."""
    board = r.board()
    plans = [carried_out(make_plan(Request(find_shape(name)), board)) for name in SIZES]
    yield _npu(plans)
    if all(plan.cpu is None for plan in plans):
        title = f"no Gemma fits the CPU here: the smallest in {CPU_QUANT} needs more RAM than is available"
        limit = board.memory.limit
        remedy = f"use a board with 8 GB or more, or stop other programs: {LARGEST}"
        remedy = remedy if limit is None else f"raise the control group's limit: {RAISE_GROUP}"
        available = board.memory.available or 0
        yield Finding(
            "models_cpu", ERROR, title, (f"{available // MIB} MiB available",), remedy, "oom_killed", (CPU,)
        )


def _npu(plans: list[Plan]) -> Finding:
    loads = [plan for plan in plans if plan.verdict != NO]
    if loads:
        return Finding("models", OK, f"the NPU takes {', '.join(map(_named, loads))} in w8a8", _context(plans))
    least = min(plans, key=lambda plan: plan.need.total)
    reason = least.reasons[0]
    title = f"no Gemma loads on the NPU here, not even {least.request.shape.name} in w8a8: {reason.text}"
    remedy = "; or ".join(cures(least)) or "rk-gemma plan --board PROFILE compares boards"
    return Finding("models", ERROR, title, _context(plans), remedy, reason.cause, (NPU,))


def _named(plan: Plan) -> str:
    notes = [] if plan.verdict == FITS else [plan.verdict]
    notes += [f"IOMMU domain {plan.request.base_domain}"] if plan.request.base_domain else []
    return f"{plan.request.shape.name} ({', '.join(notes)})" if notes else plan.request.shape.name


def _context(plans: list[Plan]) -> tuple[str, ...]:
    least = min(plans, key=lambda plan: plan.need.total)
    return (
        f"{least.request.shape.name} takes {least.need.total // MIB} MiB with a context of {least.request.context}",
    )
