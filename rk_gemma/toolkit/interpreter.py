"""The Python that the toolkit is to live in: found, asked, and held against the wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma.toolkit.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma.toolkit.wheel import Wheel

ELSEWHERE = (
    "convert on a PC, in the cloud or in a CI job on x86_64, and copy the bundle to the board; a finished .rkllm"
    " needs no toolkit: `rk-gemma pull` or `rk-gemma pack`"
)
ASK = """
import json, platform, sys
from importlib.util import find_spec
print(json.dumps({
    "version": list(sys.version_info[:2]), "full": platform.python_version(), "machine": platform.machine(),
    "implementation": sys.implementation.name, "system": sys.platform, "libc": platform.libc_ver()[0],
    "venv": bool(find_spec("venv") and find_spec("ensurepip")), "path": sys.executable,
}))
"""
ASKED = ("full", "machine", "implementation", "system", "libc")
PATIENCE_S = 60


@dataclass(frozen=True)
class Interpreter:
    """What a Python says of itself. `libc` is glibc, or empty for another one; `venv`: it can make environments."""

    path: str
    version: tuple[int, int]
    full: str
    machine: str
    implementation: str
    system: str
    libc: str
    venv: bool


def check_host(system: str, machine: str) -> None:
    """Raise HostError for a machine that no wheel of the toolkit runs on."""
    if system != "linux" or machine.lower() not in {"x86_64", "amd64"}:
        raise HostError(f"rkllm-toolkit runs on Linux x86_64 only, this is {system} {machine}: {ELSEWHERE}")


def find_interpreter(wheel: Wheel, given: str) -> Interpreter:
    """Find the Python for a wheel: the `given` one, or the first of its version. Raises HostError."""
    if given:
        found = ask(given)
        _check(found, wheel)
        return found
    why: list[HostError] = []
    for path in filter(_runs, _candidates(wheel.python)):
        found = ask(path)
        if found.version == wheel.python:
            try:
                _check(found, wheel)
            except HostError as error:  # one without venv: the next may do
                why.append(error)
                continue
            return found
    if why:
        raise why[0]
    wanted = f"{wheel.python[0]}.{wheel.python[1]}"
    raise HostError(
        f"{wheel.path}: needs Python {wanted}, and none was found; install it (`uv python install {wanted}`, pyenv,"
        " conda, or the distribution's package) and give it with --python"
    )


def _runs(path: str) -> bool:
    """Whether it is a Python at all, and not a shim that leads nowhere."""
    try:
        return os.access(path, os.X_OK) and bool(ask(path))
    except HostError:
        return False


def ask(path: str) -> Interpreter:
    """Run a Python and have it describe itself. Raises HostError."""
    found = shutil.which(path) or path
    try:
        done = subprocess.run(
            [found, "-I", "-c", ASK], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
        )
        tree = json.loads(done.stdout)
        version = (int(tree["version"][0]), int(tree["version"][1]))
        full, machine, kind, system, libc = (str(tree[key]) for key in ASKED)
        return Interpreter(found, version, full, machine, kind, system, libc, bool(tree["venv"]))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, IndexError) as error:
        raise HostError(f"--python {path}: not a Python that can be run: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _candidates(version: tuple[int, int]) -> Iterator[str]:
    """List where a Python of this version may lie: this one, on PATH, and where uv, pyenv and conda put theirs."""
    word = f"{version[0]}.{version[1]}"
    if sys.version_info[:2] == version and sys.executable:
        yield sys.executable
    on_path = shutil.which(f"python{word}")
    if on_path:
        yield on_path
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path(data) / "uv/python")
    places = ((uv, f"cpython-{word}.*"), (Path.home() / ".pyenv/versions", f"{word}.*"))
    for folder, pattern in places:
        for home in sorted(folder.glob(pattern), reverse=True) if folder.is_dir() else ():
            yield str(home / "bin" / f"python{word}")


def _check(found: Interpreter, wheel: Wheel) -> None:
    check_host(found.system, found.machine)
    if found.implementation != "cpython":
        raise HostError(f"{found.path}: {found.implementation}, and the toolkit needs CPython")
    if found.libc != "glibc":
        raise HostError(
            f"{found.path}: its C library is not glibc (Alpine?), and torch has no build for it; use a Debian or"
            " Ubuntu system or image"
        )
    if "x86_64" not in wheel.machine or not wheel.machine.startswith(("linux", "manylinux")):
        raise HostError(f"{wheel.path}: made for {wheel.machine}; this machine needs a linux_x86_64 wheel")
    if found.version != wheel.python:
        own, theirs = (f"{v[0]}.{v[1]}" for v in (found.version, wheel.python))
        raise HostError(
            f"{wheel.path}: made for Python {theirs}, and {found.path} is {own}; give --python a Python {theirs}, or"
            f" the wheel with cp{found.version[0]}{found.version[1]} in its name"
        )
    if not found.venv:
        raise HostError(f"{found.path}: cannot make environments; install python{found.version[0]}."
                        f"{found.version[1]}-venv (Debian, Ubuntu), or use another Python")  # fmt: skip
