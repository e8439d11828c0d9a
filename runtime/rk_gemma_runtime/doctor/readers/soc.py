"""Which board and which SoC, and whether a container hides it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.chips import chip_of, platform_of
from rk_gemma_runtime.doctor.reader import quote

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

MODEL = "proc/device-tree/model"
COMPATIBLE = "proc/device-tree/compatible"
CONTAINER = "rk-gemma/container"
UNAME = "rk-gemma/uname"


@dataclass(frozen=True)
class Soc:
    """`chip` such as rk3588s; `container` is docker, lxc ... or "" outside; `machine` as uname -m has it."""

    model: str | None
    compatible: tuple[str, ...] | None
    container: str | None
    kernel: str | None
    machine: str | None

    @property
    def chip(self) -> str | None:
        """The first SoC of the device tree that librkllmrt supports, else the first that it names."""
        return chip_of(self.compatible or ())

    @property
    def platform(self) -> str | None:
        """The platform as rkllm's files name it: RK3588 for a rk3588s too."""
        return platform_of(self.chip) if self.chip else None


def read(reader: Reader) -> Soc:
    """Read model and SoC from the device tree, kernel and container."""
    kernel = reader.value(UNAME, _uname, needed=False) or (None, None)
    return Soc(
        model=reader.value(MODEL, _string),
        compatible=reader.value(COMPATIBLE, _strings),
        container=reader.value(CONTAINER, _container, needed=False),
        kernel=kernel[0],
        machine=kernel[1],
    )


def _strings(text: str) -> tuple[str, ...]:
    """Split strings that each end in NUL, as the kernel shows a device-tree property."""
    if not text.endswith("\0"):
        raise ValueError(f"{quote(text)} does not end in NUL: cut off")
    found = tuple(text[:-1].split("\0"))
    if not all(found):
        raise ValueError("an empty string in a device-tree property")
    return found


def _string(text: str) -> str:
    found = _strings(text)
    if len(found) != 1:
        raise ValueError(f"{len(found)} strings where one belongs")
    return found[0]


def _uname(text: str) -> tuple[str, str]:
    words = text.split()
    if len(words) != 2:
        raise ValueError(f"{quote(text)} is not kernel and machine")
    return words[0], words[1]


def _container(text: str) -> str:
    found = text.strip()
    if not re.fullmatch(r"[a-z]{1,20}", found):
        raise ValueError(f"{quote(text)} is not a kind of container")
    return "" if found == "none" else found
