"""Toolkits installed from stand-in wheels, once for all tests of a run, and checkpoints that they convert."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hosttools import ROOT
from standin import TAG, build_wheel

from rk_gemma.toolkit import homes
from rk_gemma.toolkit.install import NONE, plan_setup, set_up
from tests.sharing import exclusive

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = ROOT / "demo" / "checkpoint"


def installed(home: Path, version: str) -> str:
    """Install a stand-in below `home`, unless another worker has; return its name."""
    home.mkdir(parents=True, exist_ok=True)
    name = f"rkllm-{version}-{TAG}"
    with exclusive(home / f"{version}.lock"):
        given = os.environ.get(homes.HOME)
        os.environ[homes.HOME] = str(home)
        try:
            if not homes.place_of(name).exists():
                wheel = build_wheel(home / "wheels", version)
                set_up(plan_setup(wheel, "", "", NONE, "", "linux", "x86_64"), lambda line: None)
        finally:
            os.environ.pop(homes.HOME)
            if given is not None:
                os.environ[homes.HOME] = given
    return name


def checkpoint(folder: Path, source: Path = DEMO, **standin: Any) -> Path:
    """Copy a checkpoint by links, with orders for the stand-in in its config."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "config.json":
            os.symlink(path, folder / path.name)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "standin": standin}))
    return folder


def calls(record: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read what the stand-in was called with."""
    return [(step, arguments) for step, arguments in map(json.loads, record.read_text().splitlines())]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def left(folder: Path) -> Iterator[str]:
    """Name what an export left beside its target."""
    return (path.name for path in folder.iterdir() if path.name.endswith(".partial"))
