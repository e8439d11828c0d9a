"""A finding: one result of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rk_gemma_runtime.printable import one_line

ERROR, WARNING, NOTE, OK = SEVERITIES = ("error", "warning", "note", "ok")
NPU, CPU = "npu", "cpu"
MOST_TEXT = 500


@dataclass(frozen=True)
class Finding:
    """`evidence`: what was read and where. `remedy`: what to do, the command where there is one. `cause`: an id of
    the diagnosis rule book, or "". `blocks`: the backends (npu, cpu) that cannot be used because of it."""

    id: str
    severity: str
    title: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    cause: str = ""
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep every text on one line, whatever the quoted files hold."""
        for name in ("title", "remedy"):
            object.__setattr__(self, name, _line(getattr(self, name)))
        object.__setattr__(self, "evidence", tuple(map(_line, self.evidence)))

    def tree(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return {**asdict(self), "evidence": list(self.evidence), "blocks": list(self.blocks)}


def _line(text: str) -> str:
    return one_line(text[:MOST_TEXT])


def sort_findings(findings: list[Finding]) -> list[Finding]:
    """Sort findings: worst first; among equals, first what keeps a backend from working, then as the checks came."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), not f.blocks))
