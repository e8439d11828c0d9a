"""A command to run inside the arm64 tree, and what it sees: directories, environment, CPU."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = "/home/board"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The cores of an RK3588 are A76 and A55: code that needs a newer CPU must fail here too.
CPU = "cortex-a76"
KEPT = "CI COLORTERM COLUMNS FORCE_COLOR LANG LINES LOGNAME NO_COLOR TERM TMPDIR TZ USER".split()
KEPT_PREFIXES = ("HYPOTHESIS_", "LC_", "OMP_", "PYTEST_", "PYTHON", "QEMU_", "RKLLM_", "RK_GEMMA_")
DROPPED = ("PYTHONHOME", "PYTHONEXECUTABLE", "PYTHONSTARTUP", "PYTHONUSERBASE", "QEMU_LD_PREFIX")
HOST_FILES = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf")


class Failed(Exception):
    """Something the user has to mend; the message says what and how."""


class Unavailable(Failed):
    """This machine does not let a command enter the tree this way."""


@dataclass(frozen=True)
class Job:
    """COMMAND runs in CWD of a tree made of ROOT and of BINDS, (host path, path inside) in mounting order."""

    root: Path
    command: list[str]
    binds: list[tuple[Path, str]]
    cwd: str
    env: dict[str, str]
    writable: bool = False


def make_job(root: Path, command: list[str], extra: list[str], *, writable: bool = False) -> Job:
    """A job that sees the checkout and the temporary directories under their own names; EXTRA: SRC[:DST]."""
    places = dict.fromkeys([Path("/tmp"), Path(tempfile.gettempdir()).resolve(), CHECKOUT])
    binds = [(place, str(place)) for place in places]
    binds += [(Path(name).resolve(), name) for name in HOST_FILES if Path(name).exists()]
    binds += [_parse_bind(text) for text in extra]
    return Job(root, command, binds, _working_directory(binds), environment(), writable)


def environment() -> dict[str, str]:
    """What of the caller's environment holds inside too, plus the board's own."""
    env = {
        name: value
        for name, value in os.environ.items()
        if (name in KEPT or name.startswith(KEPT_PREFIXES)) and name not in DROPPED
    }
    given = [os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    env["PYTHONPATH"] = os.pathsep.join([*given, str(CHECKOUT), str(CHECKOUT / "runtime")])
    env |= {"HOME": HOME, "PATH": PATH}
    qemu = find_qemu()
    if qemu is not None and CPU in _cpus(qemu):
        env.setdefault("QEMU_CPU", CPU)
    return env


def find_qemu() -> str | None:
    """The emulator's path; None where the host itself is aarch64."""
    if platform.machine() == "aarch64":
        return None
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        raise Failed("qemu-aarch64-static is not installed: apt-get install qemu-user-static")
    return found


def _cpus(qemu: str) -> list[str]:
    return subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, check=False).stdout.split()


def _parse_bind(text: str) -> tuple[Path, str]:
    source, _, target = text.partition(":")
    path = Path(source).resolve()
    if not path.exists():
        raise Failed(f"--bind {text}: {source} does not exist")
    return path, os.path.abspath(target or source)


def _working_directory(binds: list[tuple[Path, str]]) -> str:
    here = Path.cwd()
    seen = any(here.is_relative_to(source) and str(source) == target for source, target in binds)
    return str(here if seen else CHECKOUT)
