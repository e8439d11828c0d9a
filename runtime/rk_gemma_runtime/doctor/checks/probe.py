"""What the probe measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import ERROR, NOTE, OK, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings
    from rk_gemma_runtime.driver import ask

MIB, HALF = 1 << 20, 2 << 30
DOMAIN = 4 << 30
NOISE = 64 * MIB
BESIDE = "stop other NPU programs; run and chat try another IOMMU domain by themselves (--npu-domain N names one)"


def check(r: Readings) -> Iterator[Finding]:
    """Check the result of a probe; nothing without one."""
    probe = r.probe
    if probe is None:
        return
    if probe.refused:
        yield Finding("probe", WARNING, "the probe measured nothing", (probe.refused,))
        return
    if probe.largest is None:
        yield Finding(
            "probe", ERROR, "the driver gave the probe no buffer at all", tuple(probe.notes), "", "npu_malloc_no_ram"
        )
        return
    evidence = tuple(_lines(probe))
    if probe.largest_exact and probe.largest <= HALF:
        title = f"the largest buffer that the NPU maps is {_mib(probe.largest)}"
        old = probe.alignment == "size"
        remedy = "a kernel with rknpu driver 0.9.8" if old else BESIDE
        cause = "driver_too_old" if old else "npu_malloc_iova_exhausted"
        yield Finding("probe", WARNING, title, evidence, remedy, cause)
    else:
        yield Finding(
            "probe", OK, f"the NPU maps a buffer of {_at_least(probe.largest, probe.largest_exact)}", evidence
        )
    if probe.free is not None and probe.free_exact and DOMAIN - probe.free > NOISE:
        title = f"domain {probe.domain} has {_mib(probe.free)} free: others hold {_mib(DOMAIN - probe.free)}"
        yield Finding("probe_free", NOTE, title, (), BESIDE)


def _lines(probe: ask.Result) -> Iterator[str]:
    assert probe.largest is not None
    yield f"largest buffer in domain {probe.domain}: {_at_least(probe.largest, probe.largest_exact)}"
    if probe.free is not None:
        yield f"free in domain {probe.domain}: {_at_least(probe.free, probe.free_exact)}"
    if probe.alignment:
        yield f"I/O addresses are aligned to the {'buffer' if probe.alignment == 'size' else 'page'}"
    if probe.multi_domain is not None:
        yield "several IOMMU domains: " + ("yes" if probe.multi_domain else "no, --npu-domain changes nothing")
    yield f"took {probe.seconds:.1f} s"
    yield from probe.notes


def _at_least(size: int, exact: bool) -> str:
    return _mib(size) if exact else f"at least {_mib(size)}"


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"
