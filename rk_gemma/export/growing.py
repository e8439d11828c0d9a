"""A large file that is written block after block, and can be gone on with after an interrupt.

Beside FILE stands FILE.at: how many blocks are in it for certain (they were synced before the note was written), its
inode, and a hash of what it begins with. Every block has its place, so writing one twice does no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma.checkpoint import Tensor
    from rk_gemma.checkpoint.reader import Array

SUFFIX = ".at"
NOTE_BYTES = 64 << 20  # of values between two notes; a sync costs little then, and at most this is done again


class Growing:
    """The open file. Not for use by two threads."""

    def __init__(self, file: BinaryIO, side: Path, head: bytes, done: int) -> None:
        self._file = file
        self._side = side
        self._head = hashlib.sha256(head).hexdigest()
        self._done = done
        self._count = 0
        self._pending = 0

    def put(self, at: int, data: bytes) -> None:
        """Write data to its place."""
        self._file.seek(at)
        self._file.write(data)

    def rest(self, tensor: Tensor, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, Array]]:
        """Yield the first row and the values of each block that the file lacks. A block is taken for written when the
        next one is asked for. Raises CheckpointError as `Tensor.blocks`."""
        step = tensor.block_rows
        skipped = min(-(-tensor.rows // step), max(0, self._done - self._count))
        self._count += skipped
        at = min(tensor.rows, skipped * step)
        if at:
            on_bytes(at * tensor.cols * 2)
        for block in tensor.blocks(at):
            yield at, block
            at += len(block)
            on_bytes(block.size * 2)
            self._written(block.nbytes)

    def finish(self, size: int) -> None:
        """Bring the file to its size."""
        self._file.flush()
        os.ftruncate(self._file.fileno(), size)

    def note(self) -> None:
        """Make what is written certain, and state it."""
        count = max(self._done, self._count)
        if not count:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        inode = os.fstat(self._file.fileno()).st_ino
        fresh = self._side.with_name(f"{self._side.name}.new")
        fresh.write_text(json.dumps({"blocks": count, "inode": inode, "head": self._head}), encoding="utf-8")
        os.replace(fresh, self._side)
        self._pending = 0

    def _written(self, size: int) -> None:
        self._count += 1
        self._pending += size
        if self._pending >= NOTE_BYTES:
            self.note()


@contextmanager
def growing(path: Path, head: bytes) -> Iterator[Growing]:
    """Open a file that begins with `head`: the one that an earlier try left, if it is the same, or a new one."""
    side = beside(path)
    done = _found(path, side, head)
    with path.open("r+b" if done else "wb") as file:
        grown = Growing(file, side, head, done)
        if not done:
            file.write(head)
        try:
            yield grown
        except (KeyboardInterrupt, SystemExit):
            grown.note()
            raise
    side.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """Return where the note on a growing file stands."""
    return path.with_name(f"{path.name}{SUFFIX}")


def _found(path: Path, side: Path, head: bytes) -> int:
    """Count the blocks of an earlier try; 0 if the file is another one or begins otherwise."""
    try:
        note = json.loads(side.read_text(encoding="utf-8"))
        with path.open("rb") as file:
            same = os.fstat(file.fileno()).st_ino == note["inode"] and file.read(len(head)) == head
        return int(note["blocks"]) if same and note["head"] == hashlib.sha256(head).hexdigest() else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
