"""Contents of files on the test hub: bytes, a made-up file of any size, or a file on the disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 16
STAMP = 8  # the number of the block: no two blocks are alike, so a misplaced resume changes the bytes
HASHED_IN_FULL = 256 << 20


class Content:
    """Bytes that are read by ranges. Subclasses give `size` and `_block`."""

    size: int

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from start to stop, at most BLOCK at a time."""
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            end = min((start // BLOCK + 1) * BLOCK, stop)
            yield self._block(start, end)
            start = end

    def _block(self, start: int, stop: int) -> bytes:
        """Return bytes that lie within one block."""
        raise NotImplementedError

    @cached_property
    def sha256(self) -> str:
        """Return the hash that LFS knows the file by."""
        return self._hashed(hashlib.sha256())

    @cached_property
    def git_oid(self) -> str:
        """Return the hash of a git blob with these bytes."""
        return self._hashed(hashlib.sha1(b"blob %d\0" % self.size))

    def _hashed(self, digest: hashlib._Hash) -> str:
        for piece in self.read():
            digest.update(piece)
        return digest.hexdigest()


@dataclass
class Stored(Content):
    """Bytes in memory."""

    data: bytes

    def __post_init__(self) -> None:
        self.size = len(self.data)

    def _block(self, start: int, stop: int) -> bytes:
        return self.data[start:stop]


@dataclass
class OnDisk(Content):
    """A file on the disk, which may be sparse."""

    path: Path

    def __post_init__(self) -> None:
        self.size = self.path.stat().st_size

    def _block(self, start: int, stop: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


@dataclass
class LargeFile(Content):
    """A file of any size that exists nowhere: bytes that follow from `seed`, with `head` and `tail` laid over them.

    Beyond HASHED_IN_FULL its hashes are made up, because nobody reads it whole; `digest` gives another sha256.
    """

    size: int
    head: bytes = b""
    tail: bytes = b""
    seed: str = ""
    digest: str | None = None

    def _block(self, start: int, stop: int) -> bytes:
        first = start - start % BLOCK
        block = bytearray((first // BLOCK).to_bytes(STAMP, "little") + self._filling)
        _lay(block, first, self.head, 0)
        _lay(block, first, self.tail, self.size - len(self.tail))
        return bytes(block[start - first : stop - first])

    @cached_property
    def _filling(self) -> bytes:
        return hashlib.shake_256(f"rk-gemma {self.seed}".encode()).digest(BLOCK - STAMP)

    def _hashed(self, digest: hashlib._Hash) -> str:
        if self.digest is not None and digest.name == "sha256":
            return self.digest
        if self.size > HASHED_IN_FULL:
            digest.update(f"{self.size} {self.seed} ".encode() + self.head + b"..." + self.tail)
            return digest.hexdigest()
        return super()._hashed(digest)


@dataclass
class Changed(Content):
    """Another content with one byte turned over: the right size and the wrong bytes."""

    content: Content
    at: int

    def __post_init__(self) -> None:
        self.size = self.content.size

    def _block(self, start: int, stop: int) -> bytes:
        piece = bytearray(b"".join(self.content.read(start, stop)))
        if start <= self.at < stop:
            piece[self.at - start] ^= 0xFF
        return bytes(piece)


Given = bytes | str | Path | Content


def content_of(given: Given) -> Content:
    """Wrap what a test gives as a file: bytes, text, a path, or a content already."""
    if isinstance(given, Content):
        return given
    if isinstance(given, Path):
        return OnDisk(given)
    return Stored(given.encode() if isinstance(given, str) else given)


def _lay(block: bytearray, first: int, piece: bytes, at: int) -> None:
    """Lay the part of `piece`, which begins at offset `at` of the file, over a block that begins at `first`."""
    start, stop = max(at, first), min(at + len(piece), first + len(block))
    if start < stop:
        block[start - first : stop - first] = piece[start - at : stop - at]
