"""RAM, swap, zram, CMA; limits of open files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.cgroup import Level, levels, limited
from rk_gemma_runtime.board.facts import Memory
from rk_gemma_runtime.doctor.reader import quote

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

MEMINFO = "proc/meminfo"
SWAPS = "proc/swaps"
LIMITS = "proc/self/limits"
LINE = re.compile(r"([0-9]{1,15}) kB")
UNLIMITED = 1 << 30
GROUPS = "rk-gemma/cgroup"
OPEN_FILES = "Max open files"


@dataclass(frozen=True)
class MemoryReading:
    """In bytes. `zram` is the part of swap that lies in RAM, compressed. `available` and `swap_free` as far as
    control groups allow; `groups` are those with a limit, `machine_available` is what there is without them."""

    total: int | None
    available: int | None
    swap_total: int | None
    swap_free: int | None
    cma_total: int | None
    cma_free: int | None
    zram: int | None
    machine_available: int | None = None
    groups: tuple[Level, ...] = ()

    def board(self) -> Memory:
        """Make the facts of the memory model."""
        least = min((level.limit for level in self.groups), default=None)
        limit = least if least is None or self.total is None or least < self.total else None
        return Memory(self.total, self.available, self.swap_free, self.cma_total, limit)


@dataclass(frozen=True)
class LimitsReading:
    """RLIMIT_NOFILE; unlimited is a very large number."""

    soft: int | None
    hard: int | None


def read(reader: Reader) -> MemoryReading:
    """Read /proc/meminfo and /proc/swaps."""
    text = reader.text(MEMINFO)
    lines = dict(line.partition(":")[::2] for line in (text or "").splitlines())

    def size(name: str, needed: bool = True) -> int | None:
        if text is None or (name not in lines and not needed):
            return None
        value = lines.get(name, "").strip()
        match = LINE.fullmatch(value)
        if match is None:
            reader.complain(MEMINFO, f"{name} is {quote(value)}, not kB" if name in lines else f"no {name}: cut off?")
            return None
        return int(match[1]) * 1024

    total, available = size("MemTotal"), size("MemAvailable")
    if total is not None and available is not None and available > total:
        reader.complain(MEMINFO, "MemAvailable is more than MemTotal")
        total = available = None
    groups = _groups(reader)
    usable = limited(Memory(total, available, size("SwapFree")), groups)
    return MemoryReading(
        total=total,
        available=usable.available,
        swap_total=size("SwapTotal"),
        swap_free=usable.swap_free,
        machine_available=available,
        groups=tuple(groups),
        cma_total=size("CmaTotal", needed=False),
        cma_free=size("CmaFree", needed=False),
        zram=reader.value(SWAPS, _zram, needed=False),
    )


def _groups(reader: Reader) -> list[Level]:
    """Read the limits of control groups. Their names may be private: a capture has the numbers alone."""
    if reader.root.peek(GROUPS) is None:
        lines = "".join(f"{told(level)}\n" for level in levels(reader.root.peek))
        if not lines:
            return []
        reader.root.add(GROUPS, lines.encode())
    return reader.value(GROUPS, lambda text: [_level(line) for line in text.splitlines()]) or []


def told(level: Level) -> str:
    """Write a level: limit, used, swap or -, and the name of the limit's file."""
    return f"{level.limit} {level.used} {'-' if level.swap is None else level.swap} {level.where.rpartition('/')[2]}"


def _level(line: str) -> Level:
    words = line.split()
    if len(words) != 4 or not all(re.fullmatch(r"[0-9]{1,18}|-", word) for word in words[:3]) or "-" in words[:2]:
        raise ValueError(f"{quote(line)} is not a limit of a control group")
    return Level(int(words[0]), int(words[1]), None if words[2] == "-" else int(words[2]), words[3][:40])


def read_limits(reader: Reader) -> LimitsReading:
    """Read /proc/self/limits: of this process, which a worker inherits."""
    found = reader.value(LIMITS, _open_files)
    return LimitsReading(*found) if found else LimitsReading(None, None)


def _zram(text: str) -> int:
    lines = text.splitlines()
    if not lines or not lines[0].startswith("Filename"):
        raise ValueError(f"{quote(text)} is not a list of swap areas")
    total = 0
    for line in lines[1:]:
        words = line.split()
        if len(words) != 5 or not re.fullmatch(r"[0-9]{1,15}", words[2]):
            raise ValueError(f"{quote(line)} is not a swap area")
        total += int(words[2]) * 1024 if "zram" in words[0] else 0
    return total


def _open_files(text: str) -> tuple[int, int]:
    line = next((x for x in text.splitlines() if x.startswith(OPEN_FILES)), None)
    if line is None:
        raise ValueError(f"no line {OPEN_FILES}")
    words = line.removeprefix(OPEN_FILES).split()
    if len(words) < 2 or not all(re.fullmatch(r"[0-9]{1,18}|unlimited", word) for word in words[:2]):
        raise ValueError(f"{quote(line)} has no soft and hard limit")
    soft, hard = (UNLIMITED if word == "unlimited" else min(int(word), UNLIMITED) for word in words[:2])
    if soft > hard:
        raise ValueError(f"soft limit {soft} over hard limit {hard}")
    return soft, hard
