"""Builds fakedrm.c and says how the driver behind the node shall be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fakedrm.c")
NODE = "/dev/dri/renderD129"
MISC = "/dev/rknpu"


def build(folder: Path) -> Path:
    """The library; skips where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for the driver with; install gcc")
    library = folder / "fakedrm.so"
    flags = ["-std=gnu11", "-O1", "-g0", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library), "-ldl"], check=True)
    return library


class Fake:
    """One board's driver: `environment()` for a process that shall find it, `lines()` of what was asked of it."""

    def __init__(self, library: Path, ledger: Path, node: str = NODE, **settings: object) -> None:
        self.node, self.ledger = node, ledger
        self._settings = {f"FAKEDRM_{name.upper()}": str(value) for name, value in settings.items()}
        self._library = library

    def environment(self) -> dict[str, str]:
        """Added to a process's own."""
        return {"LD_PRELOAD": str(self._library), "FAKEDRM_NODE": self.node, "FAKEDRM_LEDGER": str(self.ledger),
                **self._settings}  # fmt: skip

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For every process that is started from now on."""
        for name in [name for name in os.environ if name.startswith("FAKEDRM_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)

    def lines(self) -> list[str]:
        """The ledger so far."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def left(self) -> set[str]:
        """Handles that were created and not destroyed."""
        made: set[str] = set()
        for words in (line.split() for line in self.lines()):
            made |= {words[1]} if words[0] == "create" else set()
            made -= {words[1]} if words[0] == "destroy" else set()
        return made

    def most(self) -> int:
        """The largest number of bytes that were held at one time."""
        sizes: dict[str, int] = {}
        most = 0
        for words in (line.split() for line in self.lines()):
            if words[0] == "create":
                sizes[words[1]] = int(words[2])
            elif words[0] == "destroy":
                del sizes[words[1]]
            most = max(most, sum(sizes.values()))
        return most
