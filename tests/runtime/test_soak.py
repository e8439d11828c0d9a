"""Thousands of runs of one handle and hundreds of handles: nothing grows, nothing is left open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from runtimekit import ROOT, patient

from tests.sharing import build_simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = [pytest.mark.board, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("soak.py")
GROWTH = 1.01


def soak(
    library: Path, bundle: Path, runs: int, cycles: int, env: Mapping[str, str] | None = None
) -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(library), str(bundle / "model.sim"), str(runs), str(cycles)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}", "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=patient(600),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def assert_steady(found: dict[str, dict[str, int]], memory: bool) -> None:
    for what in ("runs", "cycles"):
        early, late = found[f"{what}_early"], found[f"{what}_late"]
        assert late["fds"] == early["fds"], what
        assert late["threads"] == early["threads"], what
        if memory:
            assert late["rss"] < early["rss"] * GROWTH, (what, found)


@pytest.mark.parametrize("layout", ["1.2.1", "1.3.0"])
def test_memory_and_descriptors_stay(layout: str, simulator: Callable[[str], Path], tiny_bundle: Path) -> None:
    assert_steady(soak(simulator(layout), tiny_bundle, 10_000, 200), memory=True)


@pytest.mark.parametrize(
    ("runs", "cycles"), [(1_000, 50), pytest.param(10_000, 200, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_under_the_sanitizer(runs: int, cycles: int, tiny_bundle: Path) -> None:
    """Address and undefined behaviour; its own bookkeeping grows, so memory is not compared."""
    build_simulator("sanitize")
    library = ROOT / "build" / "simulator" / "sanitize" / "1.3.0" / "librkllmrt.so"
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout
    environment = {"LD_PRELOAD": runtime.strip(), "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
    assert_steady(soak(library, tiny_bundle, runs, cycles, environment), memory=False)
