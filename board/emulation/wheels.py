"""aarch64 wheels: the requirements of the project, installed by the host's pip for a foreign machine."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from job import Failed
from relay import die_with_parent

if TYPE_CHECKING:
    from pathlib import Path

OLDEST_GLIBC = 17


def project_requirements(pyproject: Path) -> list[str]:
    """`project.dependencies`: what a board installs."""
    table = _toml().loads(pyproject.read_text(encoding="utf-8"))
    return sorted(str(entry) for entry in table["project"]["dependencies"])


def install(requirements: list[str], site: Path, *, python: str, glibc: int) -> list[str]:
    """Install into SITE for CPython PYTHON ("3.11") and glibc 2.GLIBC. Returns name==version entries."""
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(glibc, OLDEST_GLIBC - 1, -1)]
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-warn-conflicts", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]
    command += ["--platform=manylinux2014_aarch64", "--target", str(site), *requirements]
    env = os.environ | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # A pip that outlives a killed build would go on writing where the next one cleans up.
    if subprocess.run(command, env=env, check=False, preexec_fn=die_with_parent).returncode != 0:
        raise Failed(f"pip ({sys.executable}) could not install the aarch64 wheels; its message is above")
    return sorted(entry.stem.replace("-", "==", 1) for entry in site.glob("*.dist-info"))


def _toml() -> Any:
    """tomllib is in Python from 3.11 on; before that pip carries its twin."""
    try:
        return importlib.import_module("tomllib")
    except ModuleNotFoundError:
        return importlib.import_module("pip._vendor.tomli")
