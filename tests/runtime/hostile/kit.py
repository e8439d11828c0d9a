"""Builds hostile.cpp for a layout, and says how one process of it shall behave."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from runtimekit import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = ROOT / "tests" / "runtime" / "hostile" / "hostile.cpp"
SIMULATOR = ROOT / "board" / "simulator"
FLAGS = ["-std=c++17", "-O0", "-g0", "-Wall", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread"]


def builder(folder: Path) -> Callable[[str], Path]:
    """build(layout): the library, built once in `folder`; skips where there is no compiler."""

    def build(layout: str = "1.3.0") -> Path:
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("no g++ to build the hostile library with; install g++")
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

    return build
