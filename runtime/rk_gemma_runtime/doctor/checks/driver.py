"""What this version of the driver cannot do, and whether its IOMMU is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.versions import version_of
from rk_gemma_runtime.doctor.findings import ERROR, NOTE, NPU, OK, WARNING, Finding
from rk_gemma_runtime.memory.request import least_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

WORKS_SINCE, GOOD_SINCE = (0, 9, 0), (0, 9, 8)
SIZE_ALIGNED_UNTIL = (0, 9, 6)
UPDATE = "install a vendor kernel with rknpu driver 0.9.8 (the board's newest image, or its kernel packages)"


def check(r: Readings) -> Iterator[Finding]:
    """Check the version, and contradictions between the places that tell it."""
    if r.npu.silent:
        remedy = "reboot; if it comes back, look at dmesg | grep -i rknpu"
        title = "the driver does not answer"
        yield Finding("driver_silent", ERROR, title, (r.npu.silent,), remedy, "kernel_job_timeout", (NPU,))
    evidence = tuple(f"{v.where}: {v.text}" for v in r.npu.versions)
    if len({v.text for v in r.npu.versions}) > 1:
        yield Finding("driver_versions", NOTE, "the driver's version is told differently in several places", evidence)
    version = version_of(r.driver or "")
    if version:
        yield _judge(r, version, evidence or (f"kernel log: {r.driver}",))
    elif r.npu.node is not None:
        title = "the rknpu driver's version cannot be read"
        yield Finding("driver", NOTE, title, (), "sudo cat /sys/kernel/debug/rknpu/version")


def _judge(r: Readings, version: tuple[int, ...], evidence: tuple[str, ...]) -> Finding:
    name = f"rknpu driver {r.driver}"
    alignment = r.probe.alignment if r.probe else None
    if version < WORKS_SINCE:
        title = f"{name}: models load and every matmul fails"
        return Finding("driver", ERROR, title, evidence, UPDATE, "driver_too_old", (NPU,))
    if version >= GOOD_SINCE or alignment == "page":
        return Finding("driver", OK, f"{name}: what librkllmrt 1.1.0 to 1.3.1 asks for", evidence)
    if version <= SIZE_ALIGNED_UNTIL or alignment == "size":
        title = f"{name}: no buffer above 2048 MiB can be mapped, and one above 1024 MiB in each domain"
        return Finding("driver", WARNING, title, evidence, UPDATE, "driver_too_old")
    title = f"{name}: whether it maps buffers above 2048 MiB is not known"
    return Finding("driver", WARNING, title, evidence, "rk-gemma doctor --probe measures it", "driver_too_old")


def check_iommu(r: Readings) -> Iterator[Finding]:
    """Check the IOMMU: without it every buffer is contiguous memory."""
    if r.iommu is None or not r.npu.version:
        return
    sources = (
        ("the driver's own answer (ioctl)", r.npu.iommu_ioctl),
        ("kernel log at boot", r.log.iommu),
        ("/sys: iommu_group of the NPU", r.npu.iommu_sysfs),
    )
    evidence = tuple(f"{where}: {'on' if on else 'off'}" for where, on in sources if on is not None)
    if r.iommu:
        more = "; this build of the driver takes contiguous memory all the same" if r.contiguous else ""
        yield Finding("iommu", OK, f"the NPU's IOMMU is on{more}", evidence)
        return
    cma = r.memory.cma_total
    evidence += () if cma is None else (f"/proc/meminfo: CmaTotal {cma >> 20} MiB",)
    title = "the NPU's IOMMU is off: all weights must fit the contiguous memory (CMA)"
    remedy = "enable the NPU's iommu node in the device tree (status = \"okay\"), or use the board's own image"
    enough = cma is None or cma >= least_request().need.npu  # what is not known is a doubt, as for the plan
    blocks = () if enough else (NPU,)
    yield Finding("iommu", WARNING if enough else ERROR, title, evidence, remedy, "iommu_disabled", blocks)
