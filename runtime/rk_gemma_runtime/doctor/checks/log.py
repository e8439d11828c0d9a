"""What the kernel's log says about the NPU, read with the rule book."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import NOTE, OK, WARNING, Finding
from rk_gemma_runtime.doctor.readers.log import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

READ_IT = "sudo dmesg | rk-gemma explain"
HARMLESS = {"ok", "other"}
MOST_LINES = 4


def check(r: Readings) -> Iterator[Finding]:
    """Check the kernel's log. A warning at most: what has happened since boot may be over."""
    if r.log.lines is None:
        why = next((u.why for u in r.unreadable if u.path == LOG), "not there")
        if why != "not there":
            yield Finding("kernel_log", NOTE, "the kernel's log cannot be read", (f"dmesg: {why}",), READ_IT)
        return
    if find_spec("rk_gemma_runtime.diagnosis") is None:
        return
    yield from _diagnosed(r, r.log.lines)


def _diagnosed(r: Readings, lines: tuple[str, ...]) -> Iterator[Finding]:
    from rk_gemma_runtime.diagnosis import diagnose

    found = diagnose(lines, board=r.board())
    verdicts = [verdict for verdict in (found.first, *found.others) if verdict.cause not in HARMLESS]
    if not verdicts:
        yield Finding(
            "kernel_log", OK, "the kernel's log shows no failure", (f"{len(lines)} lines about the NPU or memory",)
        )
        return
    first = verdicts[0]
    evidence = tuple(line.text for line in first.evidence[:MOST_LINES])
    title = f"since boot the kernel's log shows: {first.cause}"
    yield Finding("kernel_log", WARNING, title, (*evidence, first.explanation), first.remedy, first.cause)
