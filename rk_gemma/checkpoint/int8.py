"""bitsandbytes' LLM.int8 weights, read as the float32 numbers that they stand for.

Beside `P.weight` in int8, one row for each output, stand `P.SCB`, the largest magnitude of each row, and
`P.weight_format`, 0 for rows. Other formats are tiles for one kind of GPU, which bitsandbytes itself no longer reads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rk_gemma.checkpoint.header import Stored
from rk_gemma.checkpoint.reader import Tensor
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rk_gemma.checkpoint.reader import Array

WEIGHT, SCALE, FORMAT = ".weight", ".SCB", ".weight_format"
LAYOUTS = {1: "col32", 2: "col_turing", 3: "col_ampere"}
# bitsandbytes multiplies by float32(1/127), in this order.
STEP = np.float32(float.fromhex("0x1.020408p-7"))
ORIGINAL = "export the unquantised checkpoint that it was made from"


@dataclass(frozen=True)
class Int8Tensor(Tensor):
    """A matrix whose rows are int8 numbers times `scale`; `dtype` is what it is read as."""

    scale: Tensor

    @property
    def stored_plain(self) -> bool:
        """The file holds other numbers than are read."""
        return False

    def _rows(self, fd: int, first: int, count: int) -> Array:
        raw = self._bytes(fd, self.offset + first * self.cols, count * self.cols)
        values = np.frombuffer(raw, dtype=np.int8).astype(np.float32).reshape(count, self.cols)
        with self.scale.path.open("rb", buffering=0) as file:
            place = self.scale.offset + 4 * first
            rows = np.frombuffer(self.scale._bytes(file.fileno(), place, 4 * count), dtype="<f4")
        values *= rows[:, None]
        values *= STEP
        return self._sane(values)


@dataclass(frozen=True)
class Int8Stored(Stored):
    """The place of such a matrix."""

    scale: Stored

    def tensor(self) -> Tensor:
        """Return it as a tensor that can be read. Raises CheckpointError."""
        scale = self.scale.tensor()
        fits = len(self.shape) == 2 and scale.shape == self.shape[:1] and scale.dtype == "F32"
        if not fits or self.size != self.shape[0] * self.shape[1]:
            raise CheckpointError(
                f"{self.path}: tensor {self.name} and its {SCALE[1:]} do not fit; download it again"
            )
        return Int8Tensor(self.name, self.path, self.dtype, self.shape, self.offset, scale)


def joined(stored: Iterable[Stored]) -> list[Stored]:
    """Put each int8 weight together with what belongs to it; all other tensors stay as they are. Raises
    CheckpointError for a layout of tiles."""
    found = {tensor.name: tensor for tensor in stored}
    for name, tensor in list(found.items()):
        base = name.removesuffix(WEIGHT)
        scale = found.get(base + SCALE)
        if base == name or tensor.dtype != "I8" or scale is None:
            continue
        layout = found.pop(base + FORMAT, None)
        if layout is not None:
            _check_layout(layout)
        del found[base + SCALE]
        found[name] = Int8Stored(name, tensor.path, "F32", tensor.shape, tensor.offset, tensor.size, scale)
    return list(found.values())


def is_joined(stored: Iterable[Stored]) -> bool:
    """Whether any of them is such a matrix."""
    return any(isinstance(tensor, Int8Stored) for tensor in stored)


def _check_layout(layout: Stored) -> None:
    code = _first_byte(layout.path, layout.offset) if layout.dtype == "U8" and layout.size == 1 else -1
    if code:
        kind = LAYOUTS.get(code, "an unknown layout")
        raise CheckpointError(
            f"{layout.path}: {layout.name} says {kind}: quantised by bitsandbytes 8-bit in tiles for one kind of GPU,"
            f" which cannot be read; {ORIGINAL}"
        )


def _first_byte(path: Path, offset: int) -> int:
    with path.open("rb", buffering=0) as file:
        return next(iter(os.pread(file.fileno(), 1, offset)), -1)
