"""Clocks of the NPU and of RAM, temperatures, and whether the kernel throttles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board import facts
from rk_gemma_runtime.doctor.reader import number, quote, signed, word

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

DEVFREQ = "sys/class/devfreq"
THERMAL = "sys/class/thermal"
NPU_NODE = re.compile(r"[0-9a-f]{8}\.npu")
DMC_NODE = re.compile(r"(?:[0-9a-f]{8}\.)?dmc")
ZONE = re.compile(r"thermal_zone[0-9]{1,3}")
COOLING = re.compile(r"cooling_device[0-9]{1,3}")
HOTTEST_SANE = 200_000
CLOCK_COOLERS = re.compile(r"cpufreq|devfreq|cpu_freq|\.npu|\.gpu|dmc")


@dataclass(frozen=True)
class Clock:
    """A devfreq device: its path in sysfs and frequencies in Hz; `most` is the highest it has."""

    path: str
    governor: str | None
    current: int | None
    most: int | None


@dataclass(frozen=True)
class Zone:
    """A thermal zone by its type, in thousandths of a degree."""

    type: str
    temperature: int


@dataclass(frozen=True)
class ClocksReading:
    """`ddr` is None where the kernel has no dmc node. `throttling`: cooling devices that lower a clock now."""

    npu: Clock | None
    ddr: Clock | None
    zones: tuple[Zone, ...]
    throttling: tuple[str, ...]

    def board(self) -> facts.Clocks:
        """Make the facts of the memory model."""
        npu, ddr = (None if c is None else facts.Clock(c.current, c.most, c.governor) for c in (self.npu, self.ddr))
        return facts.Clocks(npu, ddr, bool(self.throttling), bool(npu or ddr))


def read(reader: Reader) -> ClocksReading:
    """Read /sys/class/devfreq and /sys/class/thermal."""
    names = reader.root.names(DEVFREQ)
    npu = next((name for name in names if NPU_NODE.fullmatch(name)), None)
    ddr = next((name for name in names if DMC_NODE.fullmatch(name)), None)
    return ClocksReading(
        npu=_clock(reader, npu) if npu else None,
        ddr=_clock(reader, ddr) if ddr else None,
        zones=tuple(_zones(reader)),
        throttling=tuple(_throttling(reader)),
    )


def _clock(reader: Reader, name: str) -> Clock:
    folder = f"{DEVFREQ}/{name}"
    steps = reader.value(f"{folder}/available_frequencies", _steps, needed=False)
    most = max(steps) if steps else reader.value(f"{folder}/max_freq", number, needed=False)
    current = reader.value(f"{folder}/cur_freq", number)
    return Clock(f"/{folder}", reader.value(f"{folder}/governor", word), current, most)


def _steps(text: str) -> tuple[int, ...]:
    found = tuple(number(part) for part in text.split())
    if not found:
        raise ValueError("lists no frequency")
    return found


def _zones(reader: Reader) -> list[Zone]:
    found = []
    for name in filter(ZONE.fullmatch, reader.root.names(THERMAL)):
        kind = reader.value(f"{THERMAL}/{name}/type", word)
        # A sensor that is switched off answers EINVAL: no reason for alarm, and no temperature.
        heat = reader.value(f"{THERMAL}/{name}/temp", _temperature)
        if kind is not None and heat is not None:
            found.append(Zone(kind, heat))
    return found


def _temperature(text: str) -> int:
    value = signed(text)
    if not -60_000 <= value <= HOTTEST_SANE:
        raise ValueError(f"{quote(text)} is not a temperature in thousandths of a degree")
    return value


def _throttling(reader: Reader) -> list[str]:
    found = []
    for name in filter(COOLING.fullmatch, reader.root.names(THERMAL)):
        kind = reader.text(f"{THERMAL}/{name}/type", needed=False)
        if kind is None or not CLOCK_COOLERS.search(kind):  # a fan may run
            continue
        if reader.value(f"{THERMAL}/{name}/cur_state", number):
            found.append(kind.strip())
    return found
