"""What the test processes of one run share: a folder, locks, the build of the simulator."""

from __future__ import annotations

import fcntl
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_folder(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the whole run, the same in every worker of pytest-xdist."""
    own = factory.getbasetemp()
    return own.parent if hasattr(config, "workerinput") else own


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One process at a time, by a lock on `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_simulator(*arguments: str) -> None:
    """make in board/simulator: one at a time in the shared build folder, whoever else runs these tests."""
    with exclusive(ROOT / "build" / "simulator.lock"):
        command = ["make", "-j2", "-C", str(ROOT / "board" / "simulator"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
