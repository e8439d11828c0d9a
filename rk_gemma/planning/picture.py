"""A plan as text: memory by part, by IOMMU domain, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.facts import DOMAIN_BYTES
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.need import MIB
from rk_gemma_runtime.memory.pace import notes
from rk_gemma_runtime.memory.plan import CPU_QUANT, NO
from rk_gemma_runtime.memory.toolkits import UPDATE, eos_note, needed_library
from rk_gemma_runtime.printable import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.domains import Domain
    from rk_gemma_runtime.memory.plan import CpuChoice, Plan
    from rk_gemma_runtime.memory.speed import Speed

BAR = 48
MOST_TOLD = 100.0  # tokens/s; a model so small does not wait for RAM


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
    """Write the whole picture, 80 columns wide."""
    yield from fold(f"{title_of(plan)}: {plan.verdict}", "", "  ")
    for reason in plan.reasons:
        yield from fold(f"{reason.text} [{reason.cause}]", f"  {'-' if reason.blocks else '?'} ")
    for cure in cures(plan):
        by_itself = " (run and chat do it by themselves)" if cure.startswith("--npu-domain") else ""
        yield from fold(f"{cure} would do{by_itself}", "  + ")
    yield from _library(plan)
    yield ""
    yield from _memory(plan)
    yield from _domains(plan)
    yield from _rest(plan)


def _library(plan: Plan) -> Iterator[str]:
    """Which librkllmrt a bundle's file needs, beside the one that was named or found."""
    library = library_tree(plan)
    if library is None:
        return
    runtime = f"; planned for {library['runtime']}" if library["runtime"] else ""
    yield from fold(f"{library['needs'] or UPDATE}{runtime}", "  library: ", "  ")
    yield from (line for note in library["notes"] for line in fold(note, "  note: ", "  "))


def library_tree(plan: Plan) -> dict[str, Any] | None:
    """Return what a bundle's `.rkllm` asks of the library as plain data; None where no toolkit is stated."""
    toolkit, runtime = plan.request.toolkit, plan.request.runtime
    if not toolkit:
        return None
    note = eos_note(toolkit, runtime)
    return {
        "toolkit": toolkit,
        "needs": needed_library(toolkit),
        "runtime": runtime,
        "notes": [note] if note else [],
    }


def _memory(plan: Plan) -> Iterator[str]:
    yield f"{'memory':<16}{'MiB':>8}"
    beside = {
        "weights": f"largest buffer {plan.need.largest / MIB:.0f}",
        "kv cache": f"{plan.request.context} tokens, fp16",
    }
    for name, size in parts_of(plan).items():
        yield f"  {name:<14}{size / MIB:8.0f}   {beside.get(name, '')}".rstrip()
    available = plan.board.memory.available
    known = f"of {available / MIB:.0f} available" if available is not None else "available: not known"
    yield f"  {'together':<14}{plan.need.total / MIB:8.0f}   {known}"
    yield f"{'disk':<16}{plan.need.file / MIB:8.0f}   the NPU's file: weights, and the embedding in fp16"


def _domains(plan: Plan) -> Iterator[str]:
    if plan.board.npu.iommu is False:
        return
    used = [(number, domain) for number, domain in enumerate(plan.space.domains) if domain.spans]
    if not used:
        return
    yield ""
    yield "IOMMU domains of 4096 MiB, from the highest address down"
    yield "(W weights, S scales, s scratch, x others)"
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
    yield ""
    yield f"largest context that loads: {plan.largest_context or 'none'}"
    if plan.verdict != NO:
        yield from fold(f"NPU: {_pace(plan.speed)}; clocks pinned, short context", "", "  ")
        yield from _now(plan)
    yield from fold(_on_cpu(plan), "", "  ")


def _pace(speed: Speed) -> str:
    first = f"first token of a prompt of {speed.prompt} after {speed.ttft_s:.2f} s"
    return f"{speed.decode:.1f} tokens/s, {first} ({speed.prefill:.0f} tokens/s)"


def _now(plan: Plan) -> Iterator[str]:
    found = notes(plan.board)
    if found:
        known = f"{_pace(plan.now)}: " if plan.now != plan.speed else "less: "
        yield from fold(f"as this board is now: {known}{'; '.join(found)}; rk-gemma doctor says what to do", "", "  ")


def _on_cpu(plan: Plan) -> str:
    cpu = plan.cpu
    if cpu is None:
        weights = "the bundle's GGUF" if plan.request.cpu else f"a GGUF in {CPU_QUANT}"
        return f"CPU: {weights} does not fit"
    here = " (not in this bundle)" if plan.request.bundled and not plan.request.cpu else ""
    sizes = f"file {cpu.file / MIB:.0f} MiB, RAM {cpu.ram / MIB:.0f} MiB"
    pace = f", about {cpu.decode:.1f} tokens/s" if cpu.decode < MOST_TOLD else ""
    return f"CPU instead: {cpu.quant}{here}, {sizes}{pace}"


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
            "now_decode_tokens_per_s": round(plan.now.decode, 2),
            "now_ttft_s": round(plan.now.ttft_s, 3),
            "notes": notes(plan.board),
        },
        "cpu": None if cpu is None else _cpu_tree(cpu),
        "other_domain": plan.other_domain,
        "library": library_tree(plan),
    }


def _cpu_tree(cpu: CpuChoice) -> dict[str, Any]:
    return {
        "quant": cpu.quant,
        "file_bytes": cpu.file,
        "ram_bytes": cpu.ram,
        "decode_tokens_per_s": round(cpu.decode, 2),
    }


def _domain_trees(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"id": number, "spans": [{"what": s.what, "start": s.start, "bytes": s.bytes} for s in domain.spans]}
        for number, domain in enumerate(plan.space.domains)
        if domain.spans
    ]
