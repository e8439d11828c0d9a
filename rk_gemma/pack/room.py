"""Is there room on the disk for the files of a bundle?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def check_room(target: Path, files: list[Path], way: str) -> None:
    """Raise BundleError if copies cannot fit beside `target`. Links on one file system take nothing."""
    folder = target.absolute().parent
    if not folder.is_dir():
        return  # that is said where it is made
    device = folder.stat().st_dev
    need = sum(path.stat().st_size for path in files if way == "copy" or path.stat().st_dev != device)
    check_bytes(target, need)


def check_bytes(target: Path, need: int, there: int = 0) -> None:
    """Raise BundleError if `need` bytes are more than is free beside `target` and `there` already."""
    try:
        facts = os.statvfs(target.absolute().parent)
    except OSError as error:
        raise BundleError(f"{target.parent}: cannot write here: {error.strerror}") from error
    free = facts.f_bavail * facts.f_frsize + there
    if need > free:
        raise BundleError(
            f"{target}: no space left: {-(-need // MIB)} MiB are needed and {free // MIB} MiB are free; choose"
            " another disk for -o"
        )
