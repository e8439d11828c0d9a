"""Does this bundle go with this board and this library?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.versions import release_of
from rk_gemma_runtime.doctor.findings import CPU, ERROR, NOTE, NPU, OK, WARNING, Finding
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.plan import CPU_QUANT, FITS, carried_out, cpu_bytes, plan_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.doctor.readings import Readings
    from rk_gemma_runtime.memory.plan import Plan

MIB = 1 << 20
# This release writes no .rkllm itself.
REPLACE = "put an .rkllm of Rockchip's rkllm-toolkit in their place (docs/bundle.md)"
ADD = "put an .rkllm of Rockchip's rkllm-toolkit into it (docs/bundle.md), or use the CPU: --backend cpu"


def check(r: Readings, bundle: Bundle) -> Iterator[Finding]:
    """Check the NPU part, then the CPU part."""
    manifest = bundle.manifest
    if manifest.npu is None:
        title = "the bundle holds no NPU weights"
        yield Finding("bundle_npu", ERROR, title, (bundle.name,), ADD, "", (NPU,))
    else:
        yield from _toolkit(r, bundle)
        yield from _plan_findings(r, bundle)
    yield from _cpu(r, bundle)


def _toolkit(r: Readings, bundle: Bundle) -> Iterator[Finding]:
    """A library older than the toolkit that wrote the file refuses it, or loads it and answers nothing."""
    npu, library = bundle.manifest.npu, r.library
    assert npu is not None
    if npu.format == "sim":
        title = "the NPU weights are for the simulator: Rockchip's library does not load them"
        yield Finding("bundle_format", NOTE, title, (f"{npu.file}: format sim",), REPLACE)
        return
    made, runs = release_of(npu.toolkit), release_of(library.version if library else "")
    if not made or not runs:
        return
    evidence = (f"{npu.file}: rkllm-toolkit {npu.toolkit}", f"librkllmrt {library.version if library else ''}")
    if made > runs:
        title = f"the weights were made by rkllm-toolkit {npu.toolkit}, newer than the library"
        remedy = f"use librkllmrt {npu.toolkit} or newer"
        yield Finding("bundle_toolkit", ERROR, title, evidence, remedy, "model_version_mismatch", (NPU,))
    else:
        yield Finding(
            "bundle_toolkit", OK, "the library is not older than the toolkit that made the weights", evidence
        )


def _plan_findings(r: Readings, bundle: Bundle) -> Iterator[Finding]:
    asked = plan_bundle(bundle, r.board())
    plan = asked and carried_out(asked)
    if plan is None:
        title = "whether the NPU weights fit cannot be told: the manifest gives no known shape or weight type"
        yield Finding("bundle_npu", NOTE, title, (bundle.name,))
        return
    evidence = tuple(_evidence(plan))
    if asked is not None and plan is not asked:
        title = f"the NPU weights go to IOMMU domain {plan.request.base_domain}: {asked.reasons[0].text}"
        remedy = "run and chat change the domain by themselves"
        yield Finding("bundle_domain", NOTE, title, evidence, remedy, asked.reasons[0].cause)
    if plan.verdict == FITS:
        yield Finding("bundle_npu", OK, "the NPU weights fit this board", evidence)
        return
    for reason in plan.reasons:
        no = reason.blocks
        title = f"the NPU weights {'will not load' if no else 'may not load'}: {reason.text}"
        blocks = (NPU,) if no else ()
        yield Finding("bundle_npu", ERROR if no else WARNING, title, evidence, _cure(plan), reason.cause, blocks)


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
