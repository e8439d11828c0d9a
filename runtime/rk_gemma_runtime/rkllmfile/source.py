"""Bytes that can be read at any place: a file on the disk, or one that a server has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from rk_gemma_runtime.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Source(Protocol):
    """`size` in bytes; `name` for messages."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end."""


class FileSource:
    """A file on the disk, open until it is closed."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises InputError for what cannot be opened or is not a regular file."""
        self.name = str(path)
        try:
            if path.is_dir():
                raise InputError(f"{path}: a directory, not a file")
            if not path.is_file():
                raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """As Source says. Raises InputError if the disk fails."""
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror}") from error

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


class BytesSource:
    """Bytes in memory, such as the head of a download."""

    def __init__(self, data: bytes, name: str = "-") -> None:
        self._data = data
        self.name = name
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """As Source says."""
        return self._data[offset : offset + length]
