"""Writes adapters for the simulator, from docs/simulator.md alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from simwriter import write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from simwriter import Checkpoint

    Pairs = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]

LAYERS = ("q", "k", "v", "o", "gate", "up", "down")


def random_pairs(
    base: Checkpoint, seed: int, rank: int = 4, layers: tuple[str, ...] = LAYERS, size: float = 0.3
) -> Pairs:
    """A and B for these layers of every block; ranks differ from layer to layer."""
    rng, pairs = np.random.default_rng(seed), {}
    for name, weight in base.weights.items():
        if name.rpartition(".")[2] not in layers:
            continue
        out, inner = weight.shape
        r = rank + len(pairs) % 3
        a, b = rng.normal(0, inner**-0.5, (r, inner)), rng.normal(0, size * r**-0.5, (out, r))
        pairs[name] = a.astype(np.float32), b.astype(np.float32)
    return pairs


def write_adapter(path: Path, base: Checkpoint, pairs: Pairs, *, scaling: float = 1.0, **header: Any) -> Path:
    keys = {"kind": "lora", **{k: base.keys[k] for k in ("family", "layers", "hidden")}, "scaling": scaling, **header}
    tensors = {f"{name}.lora_{half}": m for name, pair in pairs.items() for half, m in zip("ab", pair, strict=True)}
    return write(path, {k: v for k, v in keys.items() if v is not None}, tensors)
