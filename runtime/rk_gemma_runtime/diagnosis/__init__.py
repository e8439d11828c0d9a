"""From what a log says to why it says it: cleaned lines, values, rules, verdicts.

Pure: nothing here opens anything but the package's own rule files (`rules/*.yaml`, shown in docs/diagnosis.md).
"""

from rk_gemma_runtime.diagnosis.book import CAUSES
from rk_gemma_runtime.diagnosis.engine import (
    Diagnosis,
    Evidence,
    Examination,
    Verdict,
    diagnose,
    diagnose_stream,
    examine,
)
from rk_gemma_runtime.diagnosis.readings import LogFacts

__all__ = [
    "CAUSES",
    "Diagnosis",
    "Evidence",
    "Examination",
    "LogFacts",
    "Verdict",
    "diagnose",
    "diagnose_stream",
    "examine",
]
