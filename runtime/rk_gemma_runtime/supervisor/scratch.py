"""Names of private directories for workers: each is made by a worker, for the moment in which its engine opens."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "rk-gemma-"
MOST = 99  # a Unix socket in it has a name of 107 bytes at most, and a TMPDIR may be long
Place = Path | None


def new_name() -> Path:
    """A name that nobody has. It holds this process's id, so that what is left by one that was killed can be told
    from what is in use; the first is removed."""
    given = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    place = given if len(os.fsencode(given)) <= MOST else Path("/tmp") / given.name
    _sweep(place.parent)
    return place


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}[0-9]*-*"):
        owner = path.name[len(PREFIX) :].partition("-")[0]
        with suppress(OSError, ValueError):
            if path.stat().st_uid == os.getuid() and not os.path.exists(f"/proc/{int(owner)}"):
                shutil.rmtree(path, ignore_errors=True)
