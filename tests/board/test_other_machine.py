"""The aarch64 build, under qemu: the same self-test, and the same bits as this machine's build."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from conftest import LAYOUTS, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simlib import Abi

TOOLS = ("aarch64-linux-gnu-g++", "aarch64-linux-gnu-nm", "qemu-aarch64-static")
SYSROOT = "/usr/aarch64-linux-gnu"

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(
        os.uname().machine == "aarch64" or not all(map(shutil.which, TOOLS)),
        reason="needs x86_64 with g++-aarch64-linux-gnu and qemu-user-static",
    ),
]


def checksum(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(line for line in done.stdout.splitlines() if line.startswith("logits "))


@pytest.mark.parametrize(
    ("name", "dtype"), [("tiny-gemma2", "w8a8"), ("synthetic", "w8a8_g128"), ("synthetic", "fp16")]
)
def test_the_same_bits(name: str, dtype: str, built: Path, model: Callable[[str, str], Path]) -> None:
    make("selftest")
    make("selftest", "ARCH=aarch64")
    path = str(model(name, dtype))
    here = checksum(str(built / os.uname().machine / "selftest"), path)
    there = checksum("qemu-aarch64-static", "-L", SYSROOT, str(built / "aarch64" / "selftest"), path)
    assert here == there


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exports(layout: str, built: Path, abis: dict[str, Abi]) -> None:
    make("ARCH=aarch64")
    library = built / "aarch64" / layout / "librkllmrt.so"
    command = ["aarch64-linux-gnu-nm", "-D", "--defined-only", str(library)]
    symbols = subprocess.run(command, capture_output=True, text=True).stdout
    assert {line.split()[2] for line in symbols.splitlines()} == set(abis[layout].table["functions"])
