"""Long use, and use under the sanitizers: nothing grows, nothing is touched that is not there."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import LAYOUTS, make

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.board, pytest.mark.slow]

MEASURE = re.compile(r"soak: (\w+) (\d+): (\d+) KB resident, (\d+) open files")


def test_nothing_grows(built: Path, tiny: Path) -> None:
    make("selftest")
    command = [str(built / platform.machine() / "selftest"), "--soak", str(tiny), "2000", "300"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [(what, int(kb), int(files)) for what, _, kb, files in MEASURE.findall(done.stdout)]
    assert [what for what, _, _ in found] == ["runs", "runs", "handles", "handles"]
    for first, last in (found[:2], found[2:]):
        assert last[1] - first[1] < 1024 and last[2] == first[2]


def test_no_data_races(built: Path, model: Callable[[str, str], Path]) -> None:
    make("tsan")
    command = [str(built / "tsan" / "selftest"), str(model("tiny-gemma2", "w8a8"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "ThreadSanitizer" not in done.stderr, done.stderr[-3000:]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_under_the_sanitizers(layout: str, built: Path, tiny: Path) -> None:
    """child.py in a python that has the address sanitizer loaded first."""
    make("sanitize")
    preload = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    library = built / "sanitize" / layout / "librkllmrt.so"
    command = [sys.executable, str(Path(__file__).with_name("child.py")), str(library), str(tiny)]
    environment = {**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and '"run": 0' in done.stdout, done.stderr[-3000:]
