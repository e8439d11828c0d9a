"""Is there room on the disk for an export? Asked before anything is written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rk_gemma.export.staging import partial_of
from rk_gemma_runtime.errors import BundleError
from rk_gemma_runtime.memory.dtypes import dtype_of
from rk_gemma_runtime.memory.gguf import HEADER_BYTES_PER_PIECE, gguf_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.memory.shape import Shape

MIB = 1 << 20
SCALE_BYTES = 4
EMBEDDING_BYTES = 2
# Small files, blocks and directories are not counted: a lack below this is left to the disk itself.
SLACK_BYTES = MIB


def check_space(target: Path, shape: Shape, npu: str, dtype: str, cpu: str, scratch: int = 0) -> None:
    """Raise BundleError if the weights and `scratch` bytes cannot fit beside `target`. What an earlier try has left
    there counts as free, for it is used or removed."""
    if not os.access(target.parent, os.W_OK):
        return  # why it cannot be written is said where it is tried
    parts = (npu_bytes(shape, dtype) if npu != "none" else 0, cpu_bytes(shape, cpu) if cpu != "none" else 0)
    need = scratch + sum(parts)
    free = _free(target.parent) + _left(partial_of(target))
    if need > free + SLACK_BYTES:
        raise BundleError(
            f"{target}: no space left: the bundle takes {-(-need // MIB)} MiB and {free // MIB} MiB are free; choose"
            " another disk for -o, or leave out a part with --npu none or --cpu none"
        )


def npu_bytes(shape: Shape, dtype: str) -> int:
    """Count the least that the weights of model.sim take: linear layers, their scales and the embedding."""
    kind = dtype_of(dtype)
    weights = shape.linear_weights * kind.bytes + shape.vocab * shape.hidden * EMBEDDING_BYTES
    if kind.bytes > 1:
        return weights
    return weights + SCALE_BYTES * sum(
        linear.rows * (linear.cols // kind.group if kind.group else 1) for linear in shape.linears()
    )


def cpu_bytes(shape: Shape, quant: str) -> int:
    """Count the least that model.gguf takes: all but its vocabulary."""
    return gguf_bytes(shape, quant) - int(shape.vocab * HEADER_BYTES_PER_PIECE)


def _free(folder: Path) -> int:
    """Bytes that this user may write; as good as endless where nobody can tell."""
    try:
        facts = os.statvfs(folder)
    except OSError:  # it is not there: that is said elsewhere
        return 1 << 62
    if not facts.f_blocks:  # /proc and the like count nothing, and cannot be written for another reason
        return 1 << 62
    return facts.f_bavail * facts.f_frsize


def _left(partial: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(partial) if entry.is_file(follow_symlinks=False))
    except OSError:
        return 0
