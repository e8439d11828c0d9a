"""Builds recording.cpp for a layout and a machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "tests" / "recording" / "recording.cpp"
SIMULATOR = ROOT / "board" / "simulator"
FLAGS = ["-std=c++17", "-O0", "-g0", "-Wall", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread",
         "-static-libstdc++", "-static-libgcc"]  # fmt: skip
# Where they lie already: an emulated machine has no compiler.
BUILT = "RK_GEMMA_TEST_RECORDING"


def build(folder: Path, layout: str, machine: str = platform.machine()) -> Path:
    """The library for a layout, built once in `folder`; skips where there is no compiler."""
    if BUILT in os.environ:
        return Path(os.environ[BUILT]) / layout / "librkllmrt.so"
    cross = "" if machine == platform.machine() else f"{machine}-linux-gnu-"
    compiler = shutil.which(f"{cross}g++")
    if compiler is None:
        pytest.skip(f"no {cross}g++ to build the recording library with; install it")
    place = folder / layout
    library = place / "librkllmrt.so"
    if not library.exists():
        table = SIMULATOR / "abi" / f"rkllm-{layout}.json"
        subprocess.run([sys.executable, SIMULATOR / "generate_layout.py", table, place], check=True)
        exports = f"-Wl,--version-script={place}/exports.map"
        made = place / "new.so"
        subprocess.run([compiler, *FLAGS, f"-I{place}", SOURCE, exports, "-o", made], check=True)
        made.rename(library)
    return library
