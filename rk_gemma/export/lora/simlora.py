"""NAME.lora.sim: an adapter for the simulator, in the container of model.sim (docs/simulator.md)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rk_gemma.export.simfile import LINEAR, MAGIC, VERSION, Entry, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rk_gemma.checkpoint import ModelSpec, Tensor
    from rk_gemma.export.lora.adapter import LoraAdapter

OURS = {theirs: ours for ours, theirs in LINEAR.items()}


def write_lora_sim(path: Path, adapter: LoraAdapter, spec: ModelSpec, on_bytes: Callable[[int], None]) -> None:
    """Write the file, one matrix in memory at a time. Raises CheckpointError for NaN or infinity."""
    text, placed = place(_header(adapter, spec), _plan(adapter))
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<II", VERSION, len(text)) + text)
        for entry, values in zip(placed, _values(adapter), strict=True):
            file.seek(entry.offset)
            file.write(values.tobytes())
            on_bytes(values.nbytes)


def _header(adapter: LoraAdapter, spec: ModelSpec) -> str:
    keys = {
        "kind": "lora", "family": spec.shape.family, "layers": spec.shape.layers, "hidden": spec.shape.hidden,
        "scaling": repr(adapter.config.scaling),
    }  # fmt: skip
    return "".join(f"{key} {value}\n" for key, value in keys.items())


def _plan(adapter: LoraAdapter) -> list[Entry]:
    return [
        _entry(f"blk.{pair.layer}.{OURS[pair.module]}.{half}", tensor)
        for pair in adapter.pairs
        for half, tensor in (("lora_a", pair.a), ("lora_b", pair.b))
    ]


def _entry(name: str, tensor: Tensor) -> Entry:
    return Entry(name, "f32", tensor.rows, tensor.cols, tensor)


def _values(adapter: LoraAdapter) -> Iterator[NDArray[np.float32]]:
    """The file has one scaling; where a pattern gives a module another, B carries the difference."""
    for pair in adapter.pairs:
        yield pair.a.read()
        yield pair.b_times(pair.scaling / adapter.config.scaling)
