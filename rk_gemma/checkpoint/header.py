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
from rk_gemma.checkpoint.values import cut, is_whole
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HEADER_LIMIT = 100_000_000  # the format's own limit
METADATA = "__metadata__"
MAGIC_BYTES = 64
MAGICS = {
    b"version https://git-lfs": "a Git LFS pointer in the place of the file; run `git lfs pull`",
    b"<": "a web page in the place of the file; download it again",
    b"gguf": "it is GGUF; export a checkpoint in safetensors",
    b"pk\x03\x04": "a zip or PyTorch file under another name; save it as safetensors",
    b"\x80": "a pickle under another name, which may run code when it is read; save it as safetensors",
    b"\x1f\x8b\x08": "it is compressed with gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd; unpack it",
    b"entry not found": "the hub's answer to a wrong name in the place of the file; download it again",
    b"access to model": "the hub's refusal in the place of the file; log in, accept the licence, download it again",
    b"invalid username or": "the hub's refusal in the place of the file; log in and download it again",
    b'{"error"': "a server's error in the place of the file; download it again",
}


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
                f"{self.path}: tensor {self.name} is {cut(self.dtype)}; only F32, F16 and BF16 checkpoints can be"
                " exported"
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
        start = file.read(MAGIC_BYTES)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise CheckpointError(f"{path}: no safetensors header: {_instead(start, length, size)}")
        file.seek(8)
        try:
            header = _header(file.read(length))
            found = [_stored(path, name, fact, 8 + length) for name, fact in header.items() if name != METADATA]
        except RecursionError as error:
            raise CheckpointError(f"{path}: damaged safetensors header: it is nested too deeply") from error
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged safetensors header: {error}; download the file again") from error
    _check_cover(path, found, 8 + length, size)
    return found


def _instead(start: bytes, length: int, size: int) -> str:
    """Say what a file is that is not safetensors, by its first bytes."""
    if not size:
        return "the file is empty; download it again"
    text = start.lstrip().lower()
    # A header's length may begin with any single byte; of a plausible one, the upper bytes are zero.
    enough = 1 if length > HEADER_LIMIT else 3
    found = next((what for magic, what in MAGICS.items() if text.startswith(magic) and len(magic) >= enough), "")
    return (
        found
        or f"it would have {length} bytes in a file of {size}; the file is damaged or truncated, download it again"
    )


def _header(data: bytes) -> dict[str, Any]:
    """Parse the JSON. Raises ValueError, also for a name that is there twice."""
    header = json.loads(data, object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("not a JSON object")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return table


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


def _stored(path: Path, name: str, fact: Any, base: int) -> Stored:
    """Read one entry. Raises ValueError."""
    if not isinstance(fact, dict) or not isinstance(fact.get("dtype"), str):
        raise ValueError(f"tensor {name} has no dtype")
    shape, place = _numbers(name, fact, "shape"), _numbers(name, fact, "data_offsets")
    if len(place) != 2 or place[0] > place[1]:
        raise ValueError(f"tensor {name} has impossible data_offsets {place!r:.60}")
    return Stored(name, path, fact["dtype"], tuple(shape), base + place[0], place[1] - place[0])


def _numbers(name: str, fact: dict[str, Any], key: str) -> list[int]:
    value = fact.get(key)
    if not isinstance(value, list) or not all(is_whole(n) and n >= 0 for n in value):
        raise ValueError(f"tensor {name} has impossible {key} {value!r:.60}")
    return value


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
