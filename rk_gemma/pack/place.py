"""Brings a file into a bundle: by hard link where that can be, else by a copy that is hashed on its way."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rk_gemma_runtime.bundle import sha256_of
from rk_gemma_runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

WAYS = ("link", "copy", "move")
BLOCK = 8 << 20


def check_way(way: str) -> None:
    """Raise UsageError for an unknown way."""
    if way not in WAYS:
        raise UsageError(f"unknown way {way!r}; choose {' or '.join(WAYS)}")


def place(source: Path, target: Path, way: str, on_bytes: Callable[[int], None]) -> str:
    """Bring `source` to `target`; return its sha256. A file that is to be moved stays where it is until the bundle is
    there (`remove_moved`). Raises InputError if it cannot be read, OSError if `target` cannot be written."""
    real = source.resolve()
    target.unlink(missing_ok=True)
    if way != "copy" and _linked(real, target):
        digest = sha256_of(target)
        on_bytes(target.stat().st_size)
        return digest
    return copy_hashed(real, target, on_bytes)


def remove_moved(sources: list[Path]) -> None:
    """Remove the names of files that the bundle has now."""
    for source in sources:
        source.unlink(missing_ok=True)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, one without links, or a file of another user
        return False
    return True


def copy_hashed(source: Path, target: Path, on_bytes: Callable[[int], None]) -> str:
    """Copy in blocks; a thread hashes the one before. Raises as `place`."""
    digest = hashlib.sha256()
    try:
        file = source.open("rb")
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    with file, target.open("wb") as out, ThreadPoolExecutor(1) as pool:
        hashed: Future[None] | None = None
        while block := file.read(BLOCK):
            if hashed is not None:
                hashed.result()
            hashed = pool.submit(digest.update, block)
            out.write(block)
            on_bytes(len(block))
        if hashed is not None:
            hashed.result()
    return digest.hexdigest()
