"""What loading a model takes: NPU buffers, the process's own memory, and the file. Bytes everywhere.

The rules and the sizes they were found with are in docs/memory.md; `board/simulator` follows the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.memory.dtypes import check

if TYPE_CHECKING:
    from rk_gemma_runtime.memory.dtypes import Dtype
    from rk_gemma_runtime.memory.shape import Linear, Shape

MIB = 1 << 20
# Weights are packed into one buffer per IOMMU domain up to here. Published first buffers fit at 4059037696 bytes and
# are cut before 4078960640.
CHUNK_BYTES = 3875 * MIB
# A second buffer per model: 93241344 bytes were seen for a 4B model; six 0.6B models in one domain leave it at most
# 119843584.
SCRATCH_BYTES = 96 * MIB
GROUP_BYTES = 16  # of a group's scale in all, of which
GROUP_NPU_BYTES = 8  # lie in a buffer beside the weights, and
GROUP_PACKED_BYTES = 12  # count when weights are packed
PROCESS_BYTES = 75 * MIB
VOCABULARY_BYTES = 0.75 * MIB / 1000
EMBEDDING_RAM_BYTES = 4  # a weight, where the table is not read from the file (embed_flash 0)
EMBEDDING_FILE_BYTES = 2


@dataclass(frozen=True)
class Buffer:
    """One allocation on the NPU, in the domain `step` after the first."""

    what: str
    bytes: int
    step: int


@dataclass(frozen=True)
class Need:
    """`buffers` in the order of allocation; `kv` for the whole context; `process` is the rest of the runtime."""

    buffers: tuple[Buffer, ...]
    kv: int
    embedding: int
    scales: int
    process: int
    file: int

    @property
    def npu(self) -> int:
        """Pages that the driver will pin."""
        return sum(buffer.bytes for buffer in self.buffers)

    @property
    def host(self) -> int:
        """Memory of the process itself."""
        return self.kv + self.embedding + self.scales + self.process

    @property
    def total(self) -> int:
        """RAM that must be there."""
        return self.npu + self.host

    @property
    def largest(self) -> int:
        """The largest single buffer."""
        return max(buffer.bytes for buffer in self.buffers)


def need_of(shape: Shape, dtype: Dtype, context: int, embed_flash: bool = True) -> Need:
    """Raises UsageError if the type's groups do not fit the model."""
    check(shape, dtype)
    groups = sum(_groups(linear, dtype) for linear in shape.linears())
    table = shape.vocab * shape.hidden
    return Need(
        buffers=tuple(_buffers(shape, dtype)),
        kv=shape.kv_bytes_per_token * context,
        embedding=0 if embed_flash else table * EMBEDDING_RAM_BYTES,
        scales=groups * (GROUP_BYTES - GROUP_NPU_BYTES),
        process=PROCESS_BYTES + math.ceil(shape.vocab * VOCABULARY_BYTES),
        file=shape.linear_weights * dtype.bytes + table * EMBEDDING_FILE_BYTES + groups * GROUP_NPU_BYTES,
    )


def peak_rss(shape: Shape, dtype: Dtype, tokens: int, embed_flash: bool = True) -> int:
    """Predict what a run of `tokens` tokens shows as the process's VmHWM: pages are counted once they are touched,
    and the scratch buffer is not mapped."""
    need = need_of(shape, dtype, tokens, embed_flash)
    return need.total - SCRATCH_BYTES


def _groups(linear: Linear, dtype: Dtype) -> int:
    return linear.size // dtype.group if dtype.group else 0


def _buffers(shape: Shape, dtype: Dtype) -> list[Buffer]:
    made: list[Buffer] = []
    for step, (weights, groups) in enumerate(_chunks(shape, dtype)):
        made.append(Buffer("weights", weights, step))
        if groups:
            made.append(Buffer("scales", groups * GROUP_NPU_BYTES, step))
        if step == 0:
            made.append(Buffer("scratch", SCRATCH_BYTES, 0))
    return made


def _chunks(shape: Shape, dtype: Dtype) -> list[tuple[int, int]]:
    """Cut the weights into buffers, (bytes, groups) each: tensors in order, cut before the one that would not fit."""
    chunks, weights, groups = [], 0, 0
    for linear in shape.linears():
        more, more_groups = linear.size * dtype.bytes, _groups(linear, dtype)
        if weights and weights + more + GROUP_PACKED_BYTES * (groups + more_groups) > CHUNK_BYTES:
            chunks.append((weights, groups))
            weights = groups = 0
        weights, groups = weights + more, groups + more_groups
    return [*chunks, (weights, groups)]
