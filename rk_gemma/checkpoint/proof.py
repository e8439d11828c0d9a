"""What tells one state of a file from another, without reading all of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 1 << 20


def state_of(path: Path) -> tuple[str | int, ...]:
    """Return name, place (inode), size, times and a hash of the beginning.

    A copy may keep a file's size and time of change (mtime), but not its inode's (ctime). The header of a safetensors
    file lies at its beginning.
    """
    facts = path.stat()
    with path.open("rb") as file:
        start = hashlib.sha256(file.read(SMALL)).hexdigest()
    return path.name, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, start
