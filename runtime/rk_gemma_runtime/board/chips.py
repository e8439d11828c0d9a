"""Rockchip's chips: which a device tree names, and what librkllmrt calls their platform."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Platforms that librkllmrt names; bundles are made for the first.
PLATFORM = "RK3588"
SUPPORTED = ("RK3588", "RK3576", "RK3562", "RV1126B")
# Sold with fewer cores or less of the NPU, and the same to its driver and library.
SAME = {"RK3582": "RK3588", "RK3583": "RK3588"}
MOST_CORES = 3
CORES = {"RK3588": 3, "RK3576": 2}
CHIP = re.compile(r"rockchip,(r[kv][0-9]{4}[a-z0-9]*)", re.IGNORECASE)
BOARD = re.compile(r"[a-z0-9]+,(r[kv][0-9]{4}[a-z0-9]*)-.*", re.IGNORECASE)


def chips_of(compatible: Sequence[str]) -> list[str]:
    """List the chips of a `compatible` property, the most specific first. The name of a board counts only where no
    entry is a chip alone."""
    for pattern in (CHIP, BOARD):
        found = [match[1].lower() for match in map(pattern.fullmatch, compatible) if match]
        if found:
            return found
    return []


def chip_of(compatible: Sequence[str]) -> str | None:
    """Choose the chip: the first of those that librkllmrt supports, else the first."""
    chips = chips_of(compatible)
    return next((chip for chip in chips if platform_of(chip) in SUPPORTED), chips[0] if chips else None)


def platform_of(chip: str) -> str:
    """Name a chip's platform as rkllm's files do: RK3588 for rk3588s2 and rk3582 too."""
    word = chip.upper()
    known = next((platform for platform in SUPPORTED if word.startswith(platform)), word[:6])
    return SAME.get(known, known)


def has_fewer_cores(chip: str) -> bool:
    """Whether the chip is sold with less than its platform has."""
    return chip.upper()[:6] in SAME


def cores_of(platform: str) -> int:
    """Count a platform's NPU cores; the most that any has for one that is not known."""
    return CORES.get(platform.upper(), MOST_CORES)
