"""The README's Python runs as it is printed there: on the NPU, and where there is none."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from runtimekit import ROOT

from rk_gemma_runtime.board import find_profile
from tests.conftest import cli_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.board
@pytest.mark.parametrize("profile", ["", "orangepi5-16gb", "npu-full", "no-permission", "mainline-no-rknpu"])
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_it_ends_without_a_traceback(
    number: int, profile: str, demo_bundle: Path, simulator: Callable[[str], Path]
) -> None:
    code = re.sub(r'"gemma-2-2b-it[a-z0-9-]*"', repr(str(demo_bundle)), BLOCKS[number])
    env = {}
    if profile:
        path = str(find_profile(profile))
        env = {"RK_GEMMA_LIBRKLLMRT": str(simulator("1.3.0")), "RK_GEMMA_SIM_PROFILE": path, "RK_GEMMA_BOARD": path}
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli_environment(env), capture_output=True, text=True, check=False,
        timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and done.stdout.strip()
    assert ("npu" if profile == "orangepi5-16gb" else "cpu") in done.stdout.splitlines()[-1]
