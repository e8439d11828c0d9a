"""Values of a checkpoint's tensors, read in blocks of rows with bounded memory."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
BLOCK_BYTES = 16 << 20
HALF_MAX = 65504.0
IMPLAUSIBLE = 1e6  # no Gemma weight comes near; one flipped exponent bit does


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies. `shape` has one or two dimensions."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def stored_plain(self) -> bool:
        """Whether the file holds the values as they are read."""
        return True

    @property
    def rows(self) -> int:
        """Rows of a matrix; 1 for a vector."""
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def cols(self) -> int:
        """Length of a row."""
        return self.shape[-1]

    @property
    def block_rows(self) -> int:
        """Rows of a block; the last one may have fewer."""
        return max(1, BLOCK_BYTES // (4 * self.cols))

    def blocks(self, start: int = 0) -> Iterator[Array]:
        """Read float32 blocks of whole rows, about 16 MiB each, from a row on. Raises CheckpointError on NaN, inf or
        nonsense."""
        step = self.block_rows
        with self.path.open("rb", buffering=0) as file:
            for first in range(start, self.rows, step):
                yield self._rows(file.fileno(), first, min(step, self.rows - first))

    def read(self) -> Array:
        """Read the whole tensor as float32, in its own shape. For vectors and small matrices."""
        return np.concatenate(list(self.blocks())).reshape(self.shape)

    def _rows(self, fd: int, first: int, count: int) -> Array:
        row = self.cols * ITEM_BYTES[self.dtype]
        raw = self._bytes(fd, self.offset + first * row, count * row)
        return self._sane(_to_float32(raw, self.dtype).reshape(count, self.cols))

    def _bytes(self, fd: int, place: int, size: int) -> bytes:
        raw = os.pread(fd, size, place)
        if len(raw) != size:
            raise CheckpointError(f"{self.path}: ends inside tensor {self.name}; download the file again")
        return raw

    def _sane(self, values: Array) -> Array:
        peak = float(np.abs(values).max(initial=0.0))
        if not peak < IMPLAUSIBLE:  # false for NaN too
            kind = "NaN or infinity" if not math.isfinite(peak) else f"a value of {peak:.3g}"
            raise CheckpointError(
                f"{self.path}: tensor {self.name} holds {kind}; the file is damaged, download it again"
            )
        return values


def to_float16(block: Array, name: str) -> NDArray[np.float16]:
    """Convert to 16 bits; a value that would become infinite is refused. Raises CheckpointError."""
    peak = float(np.abs(block).max(initial=0.0))
    if peak > HALF_MAX:
        raise CheckpointError(f"tensor {name} holds {peak:.6g}, over float16's {HALF_MAX:.0f}; use w8a8 and Q8_0")
    return block.astype(np.float16)


def _to_float32(raw: bytes, dtype: str) -> Array:
    if dtype == "BF16":  # bfloat16 is the upper half of a float32
        return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype="<f4" if dtype == "F32" else "<f2").astype(np.float32)
