"""The report: every check's findings, what can be used, and how that is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.doctor.checks import CHECKS, bundle, models
from rk_gemma_runtime.doctor.findings import CPU, NPU, Finding, sort_findings
from rk_gemma_runtime.printable import fold
from rk_gemma_runtime.weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.board.facts import Board
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.doctor.readings import Readings

PLANNED = {"iommu"}  # a bundle's own plan tells whether it keeps the NPU from working
USABLE, CPU_ONLY, NEITHER = 0, 4, 5


@dataclass(frozen=True)
class Report:
    """Findings, worst first."""

    findings: tuple[Finding, ...]
    board: Board

    def usable(self, backend: str) -> bool:
        """Whether no finding keeps a backend from working."""
        return not any(backend in finding.blocks for finding in self.findings)

    @property
    def exit(self) -> int:
        """0: the NPU can be used; 4: only the CPU; 5: neither."""
        if self.usable(NPU):
            return USABLE
        return CPU_ONLY if self.usable(CPU) else NEITHER

    def tree(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "usable": {NPU: self.usable(NPU), CPU: self.usable(CPU)},
            "exit": self.exit,
            "findings": [finding.tree() for finding in self.findings],
            "board": asdict(self.board),
        }

    def lines(self) -> Iterator[str]:
        """Write the report for people."""
        for finding in self.findings:
            yield from fold(finding.title, f"{finding.severity:<9}")
            for line in finding.evidence if finding.severity != "ok" else ():
                yield from fold(line, " " * 11)
            if finding.remedy:
                yield from fold(finding.remedy, " " * 9 + "> ")
        words = {USABLE: "the NPU can be used", CPU_ONLY: "only the CPU can be used", NEITHER: "nothing can answer"}
        yield words[self.exit]


def examine(readings: Readings, opened: Bundle | None = None) -> Report:
    """Run every check."""
    findings = [finding for check in CHECKS for finding in check(readings)]
    if opened is not None:
        findings = [replace(f, blocks=()) if f.id in PLANNED else f for f in findings]
        adapters = [opened.path(a.npu) for a in opened.manifest.adapters if a.npu]
        findings += bundle.check(readings, opened, read_weights(opened, adapters))
    elif not any(NPU in finding.blocks for finding in findings):
        findings += models.check(readings)
    return Report(tuple(sort_findings(findings)), readings.board())
