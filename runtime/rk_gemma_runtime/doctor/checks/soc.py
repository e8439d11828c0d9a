"""Is this a board that librkllmrt works on, and can it see that?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.chips import PLATFORM, SUPPORTED
from rk_gemma_runtime.doctor.findings import ERROR, NOTE, NPU, OK, Finding
from rk_gemma_runtime.doctor.readers.soc import COMPATIBLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

UNMASK = (
    "docker run --device /dev/dri --security-opt systempaths=unconfined --security-opt apparmor=unconfined ...,"
    " or --privileged"
)


def check(r: Readings) -> Iterator[Finding]:
    """Check the device tree."""
    soc = r.soc
    if soc.compatible is None:
        yield _unknown(r)
        return
    evidence = (f"/{COMPATIBLE}: {', '.join(soc.compatible)}",)
    if soc.platform == PLATFORM:
        yield Finding("soc", OK, f"{soc.model or 'a board'} ({soc.chip})", evidence)
    elif soc.platform in SUPPORTED:
        title = f"a {soc.platform} board: weights for {PLATFORM} do not load on it"
        yield Finding(
            "soc",
            ERROR,
            title,
            evidence,
            "use the CPU: --backend cpu; this release has weights for RK3588 alone",
            "platform_mismatch",
            (NPU,),
        )
    else:
        title = f"librkllmrt does not support {soc.chip or 'this SoC'}"
        remedy = "use a board with RK3588, or the CPU: --backend cpu"
        yield Finding("soc", ERROR, title, evidence, remedy, "unknown_platform", (NPU,))


def _unknown(r: Readings) -> Finding:
    why = next((u.why for u in r.unreadable if u.path == f"/{COMPATIBLE}"), "not read")
    evidence: tuple[str, ...] = (f"/{COMPATIBLE}: {why}",)
    if r.masked:
        title = f"the {r.soc.container} container hides the device tree: librkllmrt cannot tell the platform"
        evidence += ("the runtime then says: Your platform is unknown",)
        return Finding("soc_masked", ERROR, title, evidence, UNMASK, "unknown_platform", (NPU,))
    if r.npu.version:
        return Finding("soc", NOTE, "which board this is cannot be read", evidence)
    machine = f" (machine {r.soc.machine})" if r.soc.machine else ""
    remedy = "run this on the board; here the CPU can answer, or the simulator"
    return Finding("soc", ERROR, f"no Rockchip board{machine}", evidence, remedy, "unknown_platform", (NPU,))
