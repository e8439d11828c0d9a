"""w8a8 weights: int8 per output channel, or per group of input channels, by the largest magnitude.

The arithmetic is stated in docs/simulator.md. RK3588 takes w8a8 and w8a8_g128, g256, g512 only (RKLLM SDK 1.3.0,
section 3.1.4); the group must divide the input dimension of every linear layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def quantise(block: NDArray[np.float32], group: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise rows [n, cols] to int8 [n, cols] and scales [n, cols // group] (one column for group 0)."""
    rows, cols = block.shape
    grouped = block.reshape(rows, -1, group or cols)
    scale = np.abs(grouped).max(axis=2, keepdims=True) / np.float32(127)
    safe = np.where(scale > 0, scale, np.float32(1))
    values = np.clip(np.rint(grouped / safe), -127, 127).astype(np.int8)
    return values.reshape(rows, cols), scale[:, :, 0].astype(np.float32)
