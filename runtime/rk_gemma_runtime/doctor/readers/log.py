"""The kernel's log: lines about the NPU, its IOMMU and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

LOG = "rk-gemma/dmesg"
MOST_LINES = 2000
WANTED = re.compile(
    r"rknpu|\.npu\b|iommu|\bcma\b|cma_alloc|\boom|out of memory|killed process|swiotlb|rocket|invoked oom"
    r"|atf version",
    re.IGNORECASE,
)
# Command lines hold serial numbers, addresses and sometimes passwords.
PRIVATE = re.compile(r"command line|cmdline", re.IGNORECASE)
ATF = re.compile(r"ATF version:? *(0x[0-9a-f]{1,8})\b", re.IGNORECASE)
IOMMU = re.compile(r"rknpu iommu (?:is (enabled|disabled)|device-tree entry not found)")
INITIALIZED = re.compile(r"Initialized rknpu ([0-9.]+)|Initialized RKNPU driver: v([0-9.]+)")


@dataclass(frozen=True)
class LogReading:
    """None: the log may not be read. `iommu` as the driver said at boot, `version` likewise."""

    lines: tuple[str, ...] | None
    iommu: bool | None = None
    version: str = ""

    @property
    def firmware(self) -> tuple[str, ...]:
        """Lines that tell the version of the boot firmware's interface."""
        return tuple(line for line in self.lines or () if ATF.search(line))[-1:]

    @property
    def no_call(self) -> bool:
        """Whether the boot firmware has no call for the clock of RAM."""
        found = [match for match in map(ATF.search, self.firmware) if match]
        return bool(found) and int(found[-1][1], 16) == 0


def pick_lines(text: str) -> list[str]:
    """Pick the lines about the NPU or memory, the last ones if there are very many."""
    lines = (line for line in text.splitlines() if WANTED.search(line) and not PRIVATE.search(line))
    return list(lines)[-MOST_LINES:]


def read(reader: Reader) -> LogReading:
    """Read the lines of the kernel's log that are worth reading."""
    text = reader.text(LOG, needed=False)
    if text is None:
        return LogReading(None)
    lines = tuple(pick_lines(text))
    said = [match for match in map(IOMMU.search, lines) if match]
    begun = [match for match in map(INITIALIZED.search, lines) if match]
    return LogReading(
        lines,
        iommu=said[-1][1] == "enabled" if said else None,
        version=(begun[-1][1] or begun[-1][2]) if begun else "",
    )
