"""The benchmarks run and print their table. What they measure is read by people, not asserted here."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, cli_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.board]


def test_the_table(simulator: Callable[[str], Path]) -> None:
    simulator("1.3.0")
    command = [sys.executable, "-m", "bench", "overhead", "start", "memory"]
    done = subprocess.run(command, cwd=ROOT, env=cli_environment(), capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for row in ("overhead per token, wall", "CPU of both", "first token, npu", "first token, cpu", "idle, npu"):
        assert row in done.stdout
