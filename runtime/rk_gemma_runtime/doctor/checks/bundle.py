"""Does this bundle go with this board and this library?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import CPU, ERROR, NOTE, NPU, OK, WARNING, Finding
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.plan import CPU_QUANT, FITS, carried_out, cpu_bytes, plan_bundle
from rk_gemma_runtime.memory.reasons import check_board
from rk_gemma_runtime.memory.toolkits import UPDATE, check_toolkit, eos_note, needed_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.doctor.readings import Readings
    from rk_gemma_runtime.memory.plan import Plan
    from rk_gemma_runtime.weights import Fault, Weights

MIB = 1 << 20
AGE = "model_version_mismatch"
# This release writes no .rkllm itself.
REPLACE = "put an .rkllm of Rockchip's rkllm-toolkit in their place (docs/bundle.md)"
ADD = "put an .rkllm of Rockchip's rkllm-toolkit into it (docs/bundle.md), or use the CPU: --backend cpu"

OTHER_CHIP = "take weights that were made for this board's chip, or use the CPU: --backend cpu"


def check(r: Readings, bundle: Bundle, weights: Weights) -> Iterator[Finding]:
    """Check the NPU part, then the CPU part. `weights`: what was read of the NPU's files."""
    manifest = bundle.manifest
    if manifest.npu is None:
        title = "the bundle holds no NPU weights"
        yield Finding("bundle_npu", ERROR, title, (bundle.name,), ADD, "", (NPU,))
    else:
        yield from (_fault(fault, manifest.npu.file) for fault in weights.faults)
        for doubt in weights.doubts:
            yield Finding("bundle_file", WARNING, doubt.text, (manifest.npu.file,), doubt.remedy)
        if not any(fault.cause == AGE for fault in weights.faults):
            yield from _toolkit(r, bundle, weights.toolkit)
        yield from _plan_findings(r, bundle)
    yield from _cpu(r, bundle)


def _fault(fault: Fault, file: str) -> Finding:
    return Finding("bundle_file", ERROR, fault.text, (file,), fault.remedy, fault.cause, (NPU,))


def _toolkit(r: Readings, bundle: Bundle, toolkit: str) -> Iterator[Finding]:
    """A library older than the toolkit that wrote the file refuses it, or loads it and answers nothing."""
    npu = bundle.manifest.npu
    assert npu is not None
    if npu.format == "sim":
        title = "the NPU weights are for the simulator: Rockchip's library does not load them"
        yield Finding("bundle_format", NOTE, title, (f"{npu.file}: format sim",), REPLACE)
        return
    runtime = r.library.version if r.library else ""
    needed = needed_library(toolkit)
    evidence = (f"{npu.file}: rkllm-toolkit {toolkit}", f"librkllmrt {runtime or 'not known'}")
    for reason in check_toolkit(toolkit, runtime):
        remedy = f"use {needed}" if needed else UPDATE
        yield Finding("bundle_toolkit", ERROR, reason.text, evidence, remedy, reason.cause, (NPU,))
        return
    if not needed:
        title = "which librkllmrt the weights need is not known: neither file nor manifest names the toolkit"
        yield Finding("bundle_toolkit", NOTE, title, (npu.file,))
    elif not runtime:
        yield Finding("bundle_toolkit", NOTE, f"the weights need {needed}", evidence, "on the board: rk-gemma lib")
    else:
        title = "the library is not older than the toolkit that made the weights"
        yield Finding("bundle_toolkit", OK, title, evidence)
    note = eos_note(toolkit, runtime)
    if note:
        yield Finding(
            "bundle_eos", NOTE, note, evidence, "nothing need be done; librkllmrt 1.3.1 is said to see them"
        )


def _plan_findings(r: Readings, bundle: Bundle) -> Iterator[Finding]:
    asked = plan_bundle(bundle, r.board())
    plan = asked and carried_out(asked)
    if plan is None:
        title = "whether the NPU weights fit cannot be told: the manifest gives no known shape or weight type"
        yield Finding("bundle_npu", NOTE, title, (bundle.name,))
        yield from _platform(r, bundle)
        return
    evidence = tuple(_evidence(plan))
    if asked is not None and plan is not asked:
        title = f"the NPU weights go to IOMMU domain {plan.request.base_domain}: {asked.reasons[0].text}"
        remedy = "run and chat change the domain by themselves"
        yield Finding("bundle_domain", NOTE, title, evidence, remedy, asked.reasons[0].cause)
    if plan.verdict == FITS:
        yield Finding("bundle_npu", OK, "the NPU weights fit this board", evidence)
        return
    for reason in (reason for reason in plan.reasons if reason.cause != AGE):
        no = reason.blocks
        title = f"the NPU weights {'will not load' if no else 'may not load'}: {reason.text}"
        blocks = (NPU,) if no else ()
        cure = OTHER_CHIP if reason.cause == "platform_mismatch" else _cure(plan)
        yield Finding("bundle_npu", ERROR if no else WARNING, title, evidence, cure, reason.cause, blocks)


def _platform(r: Readings, bundle: Bundle) -> Iterator[Finding]:
    """What of a plan needs no shape and no other check tells."""
    npu = bundle.manifest.npu
    assert npu is not None
    for reason in check_board(npu.platform, 0, npu.max_context, r.board()):
        if reason.cause == "platform_mismatch":
            title, evidence = f"the NPU weights will not load: {reason.text}", (f"{npu.file}: {npu.platform}",)
            yield Finding("bundle_npu", ERROR, title, evidence, OTHER_CHIP, reason.cause, (NPU,))


def _evidence(plan: Plan) -> Iterator[str]:
    yield f"NPU buffers {plan.need.npu // MIB} MiB, in all {plan.need.total // MIB} MiB of RAM"
    yield f"largest buffer {plan.need.largest // MIB} MiB, context {plan.request.context}"


def _cure(plan: Plan) -> str:
    """Changes that were planned again and fit."""
    return "; or ".join(cures(plan)) or "rk-gemma plan --board PROFILE compares models and boards"


def _cpu(r: Readings, bundle: Bundle) -> Iterator[Finding]:
    cpu = bundle.manifest.cpu
    if cpu is None:
        title = "the bundle holds no CPU weights: there is nothing to fall back to"
        yield Finding(
            "bundle_cpu", WARNING, title, (bundle.name,), f"rk-gemma export SRC -o DIR --cpu {CPU_QUANT}", "", (CPU,)
        )
        return
    size, available = bundle.manifest.cpu_bytes, r.memory.available
    evidence = (f"{cpu.file}: {size / MIB:.0f} MiB, {cpu.quant}",)
    if available is not None and cpu_bytes(bundle) > available:
        title = f"the CPU weights do not fit the {available / MIB:.0f} MiB of RAM that are available"
        yield Finding("bundle_cpu", ERROR, title, evidence, _smaller(cpu.quant), "oom_killed", (CPU,))
    else:
        yield Finding("bundle_cpu", OK, "the CPU weights fit", evidence)


def _smaller(quant: str) -> str:
    other = f"export it with --cpu {CPU_QUANT}, " if quant != CPU_QUANT else ""
    return f"{other}export it with a smaller --context, or stop other programs"
