"""A private directory that is gone when it is left, even if this process is killed meanwhile."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Reads until this process closes the pipe, or ends.
SWEEP = 'read -r _; rm -rf -- "$1"'


@contextmanager
def private_directory(path: Path) -> Iterator[None]:
    """Make it, and remove it with what is in it. A process of its own does the latter if this one cannot: no code of
    ours runs while llama.cpp loads, and the parent's end kills us then."""
    there, here = os.pipe()
    command = ["/bin/sh", "-c", SWEEP, "sh", str(path)]
    actions = [(os.POSIX_SPAWN_DUP2, there, 0)]  # subprocess would cost a worker a megabyte
    sweeper = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    os.close(there)
    try:
        path.mkdir(mode=0o700)  # not before somebody is there who would remove it
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(here)
        os.waitpid(sweeper, 0)
