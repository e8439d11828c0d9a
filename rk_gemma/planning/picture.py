"""A plan as text: memory by part, by IOMMU domain, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.facts import DOMAIN_BYTES
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.need import MIB
from rk_gemma_runtime.memory.plan import CPU_QUANT, NO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.domains import Domain
    from rk_gemma_runtime.memory.plan import Plan

BAR = 48


def parts_of(plan: Plan) -> dict[str, int]:
    """Sum memory by part, in bytes."""
    need = plan.need
    sums = {what: sum(b.bytes for b in need.buffers if b.what == what) for what in ("weights", "scales", "scratch")}
    rest = {"kv cache": need.kv, "embedding": need.embedding, "group scales": need.scales, "runtime": need.process}
    return {name: size for name, size in {**sums, **rest}.items() if size}


def title_of(plan: Plan) -> str:
    """Write model, type, context and board in one line."""
    r = plan.request
    return f"{r.shape.name}, {r.dtype.name}, context {r.context}, on {board_line(plan.board)}"


def board_line(board: Board) -> str:
    """Write the board in a few words."""
    driver = {None: "driver not known", "": "no rknpu driver"}.get(board.npu.driver, f"driver {board.npu.driver}")
    return f"{board.title or board.name or 'this board'} ({driver})"


def plan_lines(plan: Plan) -> Iterator[str]:
    """Write the whole picture."""
    yield f"{title_of(plan)}: {plan.verdict}"
    yield from (f"  {'-' if reason.blocks else '?'} {reason.text} [{reason.cause}]" for reason in plan.reasons)
    yield from (f"  + {cure} would do" for cure in cures(plan))
    yield ""
    yield from _memory(plan)
    yield from _domains(plan)
    yield from _rest(plan)


def _memory(plan: Plan) -> Iterator[str]:
    yield f"{'memory':<16}{'MiB':>8}"
    notes = {
        "weights": f"largest buffer {plan.need.largest} bytes",
        "kv cache": f"{plan.request.context} tokens, fp16",
    }
    for name, size in parts_of(plan).items():
        yield f"  {name:<14}{size / MIB:8.0f}   {notes.get(name, '')}".rstrip()
    available = plan.board.memory.available
    known = f"of {available / MIB:.0f} available" if available is not None else "available: not known"
    yield f"  {'together':<14}{plan.need.total / MIB:8.0f}   {known}"
    yield f"  {'file':<14}{plan.need.file / MIB:8.0f}"


def _domains(plan: Plan) -> Iterator[str]:
    if plan.board.npu.iommu is False:
        return
    used = [(number, domain) for number, domain in enumerate(plan.space.domains) if domain.spans]
    if not used:
        return
    yield ""
    yield "IOMMU domains of 4096 MiB (W weights, S scales, s scratch, x others, from the highest address down)"
    for number, domain in used:
        yield f"  {number:>2} [{bar(domain)}] {domain.used / MIB:6.0f} MiB"


def bar(domain: Domain) -> str:
    """Draw the addresses of a domain, highest first, one sign for each 48th."""
    signs = {"weights": "W", "scales": "S", "scratch": "s"}
    step, line = DOMAIN_BYTES // BAR, ["."] * BAR
    for span in domain.spans:
        first, last = (DOMAIN_BYTES - span.end) // step, (DOMAIN_BYTES - span.start - 1) // step
        for place in range(first, last + 1):
            line[place] = signs.get(span.what, "x")
    return "".join(line)


def _rest(plan: Plan) -> Iterator[str]:
    speed, cpu = plan.speed, plan.cpu
    yield ""
    yield f"largest context that loads: {plan.largest_context or 'none'}"
    if plan.verdict != NO:
        yield (
            f"predicted: {speed.decode:.1f} tokens/s, first token after {speed.ttft_s:.2f} s of a prompt of"
            f" {speed.prompt} ({speed.prefill:.0f} tokens/s); clocks pinned, short context"
        )
    if cpu is None:
        weights = "the bundle's GGUF" if plan.request.cpu else f"a GGUF in {CPU_QUANT}"
        yield f"CPU: {weights} does not fit"
        return
    here = " (not in this bundle)" if plan.request.bundled and not plan.request.cpu else ""
    yield f"CPU instead: {cpu.quant}{here}, file {cpu.file / MIB:.0f} MiB, RAM {cpu.ram / MIB:.0f} MiB"


def plan_tree(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data; sizes in bytes, times in seconds."""
    r, need, cpu = plan.request, plan.need, plan.cpu
    return {
        "model": r.shape.name,
        "dtype": r.dtype.name,
        "context": r.context,
        "board": plan.board.name or plan.board.title,
        "verdict": plan.verdict,
        "reasons": [{"cause": x.cause, "text": x.text, "blocks": x.blocks} for x in plan.reasons],
        "cures": cures(plan),
        "memory": {**parts_of(plan), "total": need.total, "available": plan.board.memory.available},
        "npu_bytes": need.npu,
        "largest_buffer": need.largest,
        "file_bytes": need.file,
        "buffers": [
            {"what": b.what, "bytes": b.bytes, "domain": plan.request.base_domain + b.step} for b in need.buffers
        ],
        "domains": _domain_trees(plan),
        "largest_context": plan.largest_context,
        "speed": {
            "decode_tokens_per_s": round(plan.speed.decode, 2),
            "prefill_tokens_per_s": round(plan.speed.prefill, 1),
            "ttft_s": round(plan.speed.ttft_s, 3),
            "prompt_tokens": plan.speed.prompt,
        },
        "cpu": None if cpu is None else {"quant": cpu.quant, "file_bytes": cpu.file, "ram_bytes": cpu.ram},
        "other_domain": plan.other_domain,
    }


def _domain_trees(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"id": number, "spans": [{"what": s.what, "start": s.start, "bytes": s.bytes} for s in domain.spans]}
        for number, domain in enumerate(plan.space.domains)
        if domain.spans
    ]
