"""Memory and time of whole process trees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20


def pss_mib(pid: int) -> float:
    """Proportional set size of a process and its children, in MiB."""
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(p.memory_full_info().pss for p in tree) / MIB


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def first_byte(command: list[str], env: Mapping[str, str]) -> float:
    """Seconds from starting a command to the first byte on its stdout; the command is then let finish."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **env}) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took = time.perf_counter() - start
        process.stdout.read()
    if process.returncode != 0:
        raise RuntimeError(f"{command} returned {process.returncode}")
    return took


def rk_gemma(*arguments: str) -> list[str]:
    """The command line that runs rk-gemma with this interpreter."""
    return [sys.executable, "-c", "from rk_gemma.cli import main; main()", *arguments]


def peak_rss_mib(code: str) -> tuple[float, float]:
    """Run Python code in a process of its own: (VmHWM in MiB, seconds)."""
    tail = "\nimport re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code + tail], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024, time.perf_counter() - start


def temporary_profile(directory: Path, **simulator: object) -> dict[str, str]:
    """Environment that gives the simulator these switches."""
    path = directory / f"profile-{abs(hash(tuple(sorted(simulator.items()))))}.yaml"
    lines = [f"  {key}: {str(value).lower()}" for key, value in simulator.items()]
    path.write_text("\n".join(["simulator:", *lines, ""]))
    return {"RK_GEMMA_SIM_PROFILE": str(path)}
