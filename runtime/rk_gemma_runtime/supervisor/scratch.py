"""Names of private directories for workers: each is made by a worker, for the moment in which its engine opens."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

MOST = 99  # a Unix socket in it has a name of 107 bytes at most, and a TMPDIR may be long
Place = Path | None


def new_name() -> Path:
    """A name that is not taken."""
    given = Path(tempfile.gettempdir()) / f"rk-gemma-{os.urandom(8).hex()}"
    return given if len(os.fsencode(given)) <= MOST else Path("/tmp") / given.name
