"""Reading the files of a board: its own root, an unpacked capture, a mounted card. Nothing here may block or grow."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIMIT = 1 << 20
MOST_NAMES = 4096
MOST_LINKS = 40
# Board facts that are not files (a kernel's name, a node's owner, a process list) lie here in a capture.
OWN = "rk-gemma"
FAULTS = f"{OWN}/unreadable"
ABSENT = "not there"


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, or whose content is not what it should be."""

    path: str
    why: str


class CannotRead(Exception):
    """Why, in a few words."""


class Root:
    """A directory that holds what a board shows. `extra` are texts that stand for files (names without a leading
    slash), used before the directory. What was read and what failed is kept: a capture is made of it."""

    def __init__(self, directory: Path, extra: Mapping[str, bytes] | None = None) -> None:
        self.directory = directory
        self._extra = dict(extra or {})
        self.contents: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._told = _faults(self._quietly(FAULTS))

    def read(self, name: str) -> bytes:
        """Read a file, 1 MiB at most. Raises CannotRead."""
        try:
            data = self._extra[name] if name in self._extra else self._file(name)
        except CannotRead as error:
            self.faults[name] = str(error)
            raise
        self.contents[name] = data
        return data

    def peek(self, name: str) -> str | None:
        """Read a text without keeping that it was read; None if it cannot be."""
        data = self._quietly(name)
        return data.decode("utf-8", errors="replace") if data else None

    def add(self, name: str, data: bytes) -> None:
        """Put a text where a file would be."""
        self._extra[name] = data

    def names(self, folder: str) -> list[str]:
        """List the plain names in a directory, sorted; none if it cannot be listed."""
        inner = {n.removeprefix(f"{folder}/").split("/")[0] for n in self._extra if n.startswith(f"{folder}/")}
        try:
            with os.scandir(self.inside(folder)) as entries:
                for entry, _ in zip(entries, range(MOST_NAMES), strict=False):
                    inner.add(entry.name)
        except (OSError, ValueError, CannotRead):
            pass
        return sorted(name for name in inner if name.isprintable() and name.isascii())

    def inside(self, name: str) -> Path:
        """Resolve a name, links followed as if the directory were the root. Raises CannotRead and OSError."""
        parts, done, links = list(reversed(_parts(name))), self.directory, 0
        while parts:
            part = parts.pop()
            if part == "..":
                done = done.parent if done != self.directory else done
                continue
            target = _link(done / part)
            if target is None:
                done = done / part
                continue
            links += 1
            if links > MOST_LINKS:
                raise CannotRead("too many links")
            done = self.directory if target.startswith("/") else done
            parts += reversed(_parts(target))
        return done

    def _quietly(self, name: str) -> bytes:
        try:
            return self._extra[name] if name in self._extra else self._file(name)
        except CannotRead:
            return b""

    def _file(self, name: str) -> bytes:
        try:
            return _read(self.inside(name))
        except (FileNotFoundError, NotADirectoryError):
            raise CannotRead(self._told.get(name, ABSENT)) from None
        except OSError as error:
            raise CannotRead((error.strerror or str(error)).lower()) from None
        except ValueError:
            raise CannotRead("not a file name") from None


def _read(path: Path) -> bytes:
    # Opening a FIFO without a writer would block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise CannotRead("a directory" if stat.S_ISDIR(mode) else "not an ordinary file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise CannotRead(f"larger than {LIMIT} bytes")
    return data


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in {"", "."}]


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _faults(data: bytes) -> dict[str, str]:
    """Parse `path<TAB>why` per line: what the board itself would not show."""
    lines = (line.partition("\t") for line in data.decode("utf-8", errors="replace").splitlines())
    return {name: why[:200] for name, tab, why in lines if tab}
