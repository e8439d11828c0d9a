"""Reading a model file before llama.cpp does.

llama.cpp loads inside one call that keeps Python's lock: nothing in the worker could answer meanwhile or tell how far
it is. Nearly all of a cold load is reading; done here, in steps, the call itself finds the file in memory.
"""

from __future__ import annotations

import os

STEP = 1 << 20
ROOM = 0.8  # of the memory that is available: reading more would push out what was read


def read_ahead(path: str) -> None:
    """Bring the file into the page cache; what is there already is not read again. Blocks. Does nothing for a file
    that memory has no room for, or that cannot be read: the engine will say why."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < ROOM * _available():
                _read(file.fileno(), size)
    except OSError:
        return


def _read(fd: int, size: int) -> None:
    whole, first = bytearray(STEP), bytearray(1)
    for at in range(0, size, STEP):
        if not _cached(fd, first, at):
            os.preadv(fd, [whole], at)


def _cached(fd: int, first: bytearray, at: int) -> bool:
    try:
        return os.preadv(fd, [first], at, os.RWF_NOWAIT) == 1
    except OSError:  # not there, or a file system that does not tell
        return False


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
