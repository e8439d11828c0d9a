"""Headers of safetensors files: which tensors a file holds and where they lie, whatever their types.

The safetensors package maps whole files, which counts towards resident memory, and its NumPy side has no
bfloat16; so the (small, documented) format is read here: a u64 header length, a JSON header with dtype, shape and
data_offsets, then the data (https://github.com/huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.reader import ITEM_BYTES, Tensor
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HEADER_LIMIT = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class Stored:
    """One tensor as a header has it: any type, any number of dimensions, nothing judged but its place."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    def tensor(self) -> Tensor:
        """Return it as a tensor that can be read. Raises CheckpointError for a type or shape that Gemma lacks."""
        if self.dtype not in ITEM_BYTES:
            raise CheckpointError(
                f"{self.path}: tensor {self.name} is {self.dtype}; only F32, F16 and BF16 checkpoints can be exported"
            )
        if self.size != math.prod(self.shape) * ITEM_BYTES[self.dtype] or not 1 <= len(self.shape) <= 2:
            raise CheckpointError(
                f"{self.path}: damaged safetensors header: tensor {self.name} does not fit its shape"
            )
        return Tensor(self.name, self.path, self.dtype, self.shape, self.offset)


def read_header(path: Path) -> list[Stored]:
    """Locate the tensors of one safetensors file. Raises CheckpointError, and OSError from the file system."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise CheckpointError(f"{path}: no safetensors header (truncated, or a Git LFS pointer?)")
        try:
            header = json.loads(file.read(length))
            items = {k: v for k, v in header.items() if k != "__metadata__"}
            found = [_stored(path, name, fact, 8 + length) for name, fact in items.items()]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged safetensors header: {error!r}") from error
    _check_cover(path, found, 8 + length, size)
    return found


def metadata_of(path: Path) -> dict[str, Any]:
    """Return what a file's header says beside its tensors; nothing for a file without such words. Raises OSError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            found = json.loads(file.read(min(length, HEADER_LIMIT))).get("__metadata__")
        except (ValueError, AttributeError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Locate the tensors of a file of which every one must be readable. Raises as `read_header`."""
    return {stored.name: stored.tensor() for stored in read_header(path)}


def _stored(path: Path, name: str, fact: dict[str, Any], base: int) -> Stored:
    dtype, shape = str(fact["dtype"]), tuple(int(n) for n in fact["shape"])
    begin, end = (int(n) for n in fact["data_offsets"])
    if begin < 0 or end < begin or any(n < 0 for n in shape):
        raise ValueError(f"tensor {name} has an impossible place or shape")
    return Stored(name, path, dtype, shape, base + begin, end - begin)


def _check_cover(path: Path, tensors: Iterable[Stored], start: int, size: int) -> None:
    """Check the format's own rule: tensors follow each other without a gap and fill the file."""
    at = start
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.size)):
        if tensor.offset != at:
            raise CheckpointError(
                f"{path}: damaged safetensors header: {tensor.name} is not where the one before ends"
            )
        at += tensor.size
        if at > size:
            raise CheckpointError(
                f"{path}: truncated: tensor {tensor.name} ends at byte {at} of {size}; download the file again"
            )
    if at != size:
        raise CheckpointError(f"{path}: {size - at} bytes after the last tensor; download the file again")
