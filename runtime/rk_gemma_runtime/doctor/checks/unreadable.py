"""What could not be read, and is told nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import NOTE, Finding
from rk_gemma_runtime.doctor.readers.log import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

# The device tree and the log have findings of their own; debugfs belongs to root and another place tells the version.
TOLD = ("/proc/device-tree/", "/sys/kernel/debug/")
USUAL = {"not there", "permission denied"}
MOST = 12


def check(r: Readings) -> Iterator[Finding]:
    """Report what could not be read, in one finding."""
    told = [u for u in r.unreadable if u.path == LOG or (u.path.startswith(TOLD) and u.why in USUAL)]
    rest = [u for u in r.unreadable if u not in told]
    if rest:
        lines = [f"could not read {u.path}: {u.why}" for u in rest[:MOST]]
        more = [f"and {len(rest) - MOST} more"] if len(rest) > MOST else []
        files = "a file" if len(rest) == 1 else f"{len(rest)} files"
        yield Finding("unreadable", NOTE, f"{files} could not be read", (*lines, *more))
