"""librkllmrt.so, as a text: here tried in a process of its own, in another root only read.

The one place of the doctor that knows the binding.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.root import CannotRead
from rk_gemma_runtime.errors import LibraryError, NpuReason

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.doctor.root import Root
    from rk_gemma_runtime.librkllm.identify import Identity

NAME = "librkllmrt.so"
FOLDERS = ("usr/lib", "usr/local/lib", "usr/lib/aarch64-linux-gnu", "lib", "lib/aarch64-linux-gnu")
# Of what it needs, what a minimal system lacks: the C library and its loader are always there.
MAY_LACK = ("libomp.so", "libomp.so.5", "libgomp.so.1", "libstdc++.so.6", "libgcc_s.so.1")
WORDS = dict.fromkeys(("path", "version", "layout", "machine", "problem", "reason"), "")
EMPTY = {**WORDS, "missing": [], "tried": False}


def here(explicit: str) -> str:
    """Examine the library that would be used on this system. Blocks while it is tried."""
    from rk_gemma_runtime.librkllm.identify import identify
    from rk_gemma_runtime.librkllm.library import find, layout_from_environment

    try:
        identity = identify(find(explicit or None), layout_from_environment())
    except LibraryError as error:
        return json.dumps({**EMPTY, "path": explicit, "problem": str(error), "reason": error.reason.value})
    return _text(identity, identity.problem, True)


def under(root: Root) -> str | None:
    """Read the library in another root without loading it; None if the root holds no programs."""
    if not any(root.names(folder) for folder in FOLDERS):
        return None
    for folder in FOLDERS:
        try:
            path = root.inside(f"{folder}/{NAME}")
        except (CannotRead, OSError, ValueError):
            continue
        if path.exists():
            return _read(root, path, f"/{folder}/{NAME}")
    tried = ", ".join(f"/{folder}" for folder in FOLDERS)
    return json.dumps({**EMPTY, "problem": f"no {NAME} in {tried}", "reason": NpuReason.NO_LIBRARY.value})


def _read(root: Root, path: Path, shown: str) -> str:
    from rk_gemma_runtime.librkllm.identify import identify

    try:
        identity = identify(path, limit_s=0)
        lacks = _lacking(root, path)
    except LibraryError as error:
        words = str(error).replace(str(path), shown)
        return json.dumps({**EMPTY, "path": shown, "problem": words, "reason": error.reason.value})
    problem: LibraryError | None = None
    if lacks:
        words = f"{shown}: needs {', '.join(lacks)}, which is not there"
        problem = LibraryError(words, NpuReason.MISSING_SHARED_LIBRARY)
    elif identity.layout is None:
        problem = LibraryError(f"{shown}: {identity.conflict or 'its layout is not known'}", NpuReason.BAD_LIBRARY)
    return _text(identity, problem, False, shown)


def _lacking(root: Root, path: Path) -> list[str]:
    from rk_gemma_runtime.librkllm.faults import open_file, read_library

    with open_file(path) as file:
        needed = read_library(path, file).needed
    return [name for name in needed if name in MAY_LACK and not _has(root, name)]


def _has(root: Root, name: str) -> bool:
    for folder in FOLDERS:
        try:
            if root.inside(f"{folder}/{name}").exists():
                return True
        except (CannotRead, OSError, ValueError):
            continue
    return False


def _text(identity: Identity, problem: LibraryError | None, tried: bool, shown: str = "") -> str:
    return json.dumps({
        "path": shown or str(identity.path),
        "version": identity.version or "",
        "layout": identity.layout or "",
        "machine": identity.machine,
        "missing": list(identity.missing),
        "problem": str(problem) if problem else "",
        "reason": problem.reason.value if problem else "",
        "tried": tried,
    })  # fmt: skip
