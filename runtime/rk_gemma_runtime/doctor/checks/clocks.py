"""Clocks, and what heat does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.chips import PLATFORM, has_fewer_cores
from rk_gemma_runtime.doctor.findings import NOTE, OK, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readers.clocks import Clock
    from rk_gemma_runtime.doctor.readings import Readings

WARM, HOT = 80_000, 95_000  # thousandths of a degree; the critical point is at 115
CPUS = 8
CPUFREQ = "/sys/devices/system/cpu/cpufreq"


def check(r: Readings) -> Iterator[Finding]:
    """Check that big cores and NPU run at their highest clock."""
    yield from _cores(r)
    yield from _big(r)
    if r.clocks.npu is not None:
        yield _npu(r.clocks.npu, bool(r.clocks.throttling))


def _cores(r: Readings) -> Iterator[Finding]:
    online = r.cpu.online
    whole = r.soc.platform == PLATFORM and not has_fewer_cores(r.soc.chip or "")
    if online is not None and whole and len(online) < CPUS:
        missing = sorted(set(range(CPUS)) - set(online))
        title = f"{len(missing)} of {CPUS} CPUs are off line: librkllmrt's default mask names CPUs 4 to 7"
        evidence = (f"/sys/devices/system/cpu/online: {', '.join(map(str, online))}",)
        remedy = " && ".join(f"echo 1 | sudo tee /sys/devices/system/cpu/cpu{n}/online" for n in missing)
        yield Finding("cpu_offline", WARNING, title, evidence, remedy, "cpu_mask_mismatch")


def _big(r: Readings) -> Iterator[Finding]:
    big = [p for p in r.cpu.big if p.current is not None and p.most is not None]
    slow = [p for p in big if (p.current or 0) < (p.most or 0)]
    evidence = tuple(f"{CPUFREQ}/{p.name}: {p.governor}, {_khz(p.current)} of {_khz(p.most)}" for p in big)
    if slow:
        command = f"for p in {' '.join(p.name for p in slow)}; do echo performance |"
        command += f" sudo tee {CPUFREQ}/$p/scaling_governor; done"
        if all(p.governor == "performance" for p in slow):
            command = ""  # heat or a limit holds it down, not the governor
        yield Finding("cpu_clock", NOTE, "the big cores are not at their highest clock now", evidence, command)
    elif big:
        yield Finding("cpu_clock", OK, "the big cores are at their highest clock", evidence)


def _npu(clock: Clock, throttled: bool) -> Finding:
    if clock.current is None or clock.most is None:
        return Finding("npu_clock", NOTE, "the clock of the NPU cannot be read", (clock.path,))
    evidence = (f"{clock.path}: {clock.governor}, {clock.current // 10**6} of {clock.most // 10**6} MHz",)
    if clock.current >= clock.most:
        return Finding("npu_clock", OK, "the NPU is at its highest clock", evidence)
    held = throttled or clock.governor == "performance"  # by heat or a limit, not by the governor
    command = "" if held else f"echo performance | sudo tee {clock.path}/governor"
    return Finding("npu_clock", NOTE, "the NPU is not at its highest clock now", evidence, command)


def _khz(value: int | None) -> str:
    return "unknown" if value is None else f"{value // 1000} MHz"


def check_heat(r: Readings) -> Iterator[Finding]:
    """Check temperatures, and cooling devices that lower clocks."""
    zones = sorted(r.clocks.zones, key=lambda zone: -zone.temperature)
    evidence = tuple(f"{zone.type}: {zone.temperature / 1000:.0f} C" for zone in zones[:4])
    if r.clocks.throttling:
        slowed = (f"slowed by heat: {', '.join(r.clocks.throttling)}",)
        title = "the kernel has lowered clocks because of heat"
        remedy = "add a heat sink or a fan, open the case; then measure again"
        yield Finding("heat", WARNING, title, slowed + evidence, remedy)
    elif zones and zones[0].temperature >= WARM:
        hot = zones[0].temperature >= HOT
        title = f"{zones[0].type} is at {zones[0].temperature / 1000:.0f} C; clocks will be lowered under load"
        yield Finding("heat", WARNING if hot else NOTE, title, evidence, "add a heat sink or a fan")
    elif zones:
        yield Finding("heat", OK, f"warmest: {zones[0].type} at {zones[0].temperature / 1000:.0f} C", evidence)
