"""Cold start and idle memory."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING

from bench.processes import first_byte, pss_mib, rk_gemma
from bench.table import Row

if TYPE_CHECKING:
    from pathlib import Path

STARTS = 5
HOLD = """
import sys
from rk_gemma_runtime import Assistant
with Assistant.open(sys.argv[1], backend=sys.argv[2], librkllmrt=sys.argv[3]) as a:
    print("ready", flush=True)
    sys.stdin.read()
"""


def cold_start(library: Path, bundle: Path) -> list[Row]:
    """From the shell to the first token, warm page cache, median of five."""
    rows = []
    for backend in ("npu", "cpu"):
        command = rk_gemma(
            "run", str(bundle), "Hello", "--backend", backend, "--temperature", "0", "--max-tokens", "8"
        )  # fmt: skip
        took = median(first_byte(command, {"RK_GEMMA_LIBRKLLMRT": str(library)}) for _ in range(STARTS))
        beside = "vendor's demo server to its first answer 0.58 s (another machine)"
        rows.append(Row(f"cold start to first token, {backend}", f"{took:.2f} s", beside, "< 1 s"))
    return rows


def idle_memory(library: Path, bundle: Path) -> list[Row]:
    """PSS of parent and worker, model loaded, nothing asked."""
    rows = []
    for backend, goal in (("npu", "< 60 MB"), ("cpu", "")):
        command = [sys.executable, "-c", HOLD, str(bundle), backend, str(library)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            used = pss_mib(process.pid) * 1.048576
            process.communicate(b"")
        rows.append(Row(f"PSS of parent and worker, idle, {backend}", f"{used:.1f} MB", "", goal))
    return rows
