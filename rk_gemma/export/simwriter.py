"""NPU weights for the simulator: model.sim and NAME.lora.sim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma.export.lora.simlora import write_lora_sim
from rk_gemma.export.simfile import CORES, PLATFORM, TOOLKIT, write_sim
from rk_gemma_runtime.bundle import NpuPart
from rk_gemma_runtime.memory.dtypes import check, dtype_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.lora.adapter import LoraAdapter
    from rk_gemma.export.model import Model


class SimWriter:
    """An NpuWriter (see `npu.py`)."""

    format = "sim"
    file = "model.sim"
    adapter_suffix = ".lora.sim"

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def check(self, spec: ModelSpec) -> None:
        """Raise UsageError if the type's group does not divide the model's layers."""
        check(spec.shape, dtype_of(self._dtype))

    def work(self, spec: ModelSpec) -> int:
        """Count the checkpoint's bytes; the embedding is read again for the output layer."""
        return 2 * (spec.shape.parameters + spec.shape.head.size)

    def write(self, path: Path, model: Model, on_bytes: Callable[[int], None]) -> None:
        """Write the weights. Raises CheckpointError for a value that float16 cannot hold."""
        write_sim(path, model.checkpoint, model.text, self._dtype, model.eos, on_bytes)

    def write_adapter(
        self, path: Path, adapter: LoraAdapter, spec: ModelSpec, on_bytes: Callable[[int], None]
    ) -> None:
        """Write an adapter. Raises CheckpointError for damaged values."""
        write_lora_sim(path, adapter, spec, on_bytes)

    def part(self, context: int) -> NpuPart:
        """Make the entry of bundle.yaml for the weights."""
        return NpuPart(self.file, self.format, self._dtype, PLATFORM, TOOLKIT, context, CORES)
