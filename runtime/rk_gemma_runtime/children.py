"""Starting a Python process of our own: which interpreter, and what it may import.

A child imports what this process could, but never from the working directory: a `queue.py` that lies where somebody
runs `rk-gemma` must not be executed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from rk_gemma_runtime.errors import EngineError

PYTHON = "RK_GEMMA_PYTHON"
_NAME = re.compile(r"(python|pypy)[0-9.]*[a-z]?$")
# `-c` puts the working directory first (Python 3.11 has a flag against it, 3.10 has not), before anything but `sys`
# is imported. This package's home comes last, so that nothing beside it hides a module of the standard library.
_BOOT = (
    "import gc, sys;"
    "gc.set_threshold(20000);"  # among the objects of fresh modules there is nothing to collect: 4 of 80 ms
    "getattr(sys.flags, 'safe_path', False) or sys.path.pop(0);"
    "home, module = sys.argv[1:3];"
    "del sys.argv[1:3];"
    "home in sys.path or sys.path.append(home);"
    "sys.exit(__import__(module, fromlist=['main']).main())"  # runpy would cost a tenth of a worker's start
)


def command(module: str, *arguments: str) -> list[str]:
    """What runs `main()` of a module of this package as a program. Raises EngineError where no Python is found."""
    home = str(Path(__file__).resolve().parents[1])
    return [interpreter(), "-c", _BOOT, home, module, *arguments]


def environment() -> dict[str, str]:
    """This process's environment, without places on the import path that depend on the working directory."""
    places = filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def interpreter() -> str:
    """The Python that this process runs on. `sys.executable` is another program where Python is embedded (uWSGI,
    frozen applications). Raises EngineError where none is found."""
    named = os.environ.get(PYTHON, "")
    if named:
        return named
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    bases = [Path(prefix) / "bin" for prefix in (sys.exec_prefix, sys.base_exec_prefix)]
    beside = [str(base / name) for base in bases for name in (version, "python3")]
    given = [] if getattr(sys, "frozen", False) else [sys.executable or ""]
    # A virtual environment's before the one that it was made from, which lacks its packages.
    candidates = [*given, *beside, getattr(sys, "_base_executable", None) or ""]
    found = next((path for path in candidates if _is_python(path)), None)
    if found is None:
        raise EngineError(
            f"no Python to start the worker with: {sys.executable or 'sys.executable is empty'}; set {PYTHON} to one"
        )
    return found


def _is_python(path: str) -> bool:
    return bool(path and _NAME.match(os.path.basename(path)) and os.access(path, os.X_OK))


def above_standard(descriptor: int) -> int:
    """The same descriptor under a number above 2, where no child's standard stream takes its place: a daemon may have
    closed 0 to 2. Closes the given one where it makes another."""
    low = []
    while descriptor <= 2:
        low.append(descriptor)
        descriptor = os.dup(descriptor)
    for number in low:
        os.close(number)
    return descriptor
