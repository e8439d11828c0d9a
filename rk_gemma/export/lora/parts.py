"""The adapters of one export: opened together, written into the staging, named in the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma.export.lora.adapter import LoraAdapter
from rk_gemma.export.lora.sources import CPU_SUFFIX, LoraSource, check_names
from rk_gemma_runtime.bundle import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.npu import NpuWriter
    from rk_gemma.export.progress import Step
    from rk_gemma.export.staging import Staging

    Write = Callable[[Path, LoraAdapter, ModelSpec, Callable[[int], None]], None]


class Adapters:
    """The adapters that go into a bundle: for the NPU by its writer, if there is one, and for the `cpu`."""

    def __init__(self, sources: tuple[LoraSource, ...], spec: ModelSpec, writer: NpuWriter | None, cpu: bool) -> None:
        """Open and check each. Raises CheckpointError."""
        check_names(sources, [CPU_SUFFIX, *([writer.adapter_suffix] if writer else [])])
        self._spec = spec
        self._writer, self._cpu = writer, cpu
        self._opened = tuple(LoraAdapter.open(source, spec) for source in sources)

    def fingerprint(self) -> list[str]:
        """Return texts that change with any adapter's name or files."""
        return [adapter.fingerprint() for adapter in self._opened]

    def write(self, stage: Staging, step: Step) -> None:
        """Write every file. Raises CheckpointError for NaN or infinity."""
        for adapter in self._opened:
            if self._writer is not None:
                self._write(stage, step, adapter, self._writer.adapter_suffix, self._writer.write_adapter)
            if self._cpu:
                from rk_gemma.export.lora.gguflora import write_lora_gguf

                self._write(stage, step, adapter, CPU_SUFFIX, write_lora_gguf)

    def manifest(self) -> tuple[Adapter, ...]:
        """Make their entries of bundle.yaml."""
        return tuple(
            Adapter(
                name=adapter.source.name,
                npu=adapter.source.name + self._writer.adapter_suffix if self._writer else None,
                cpu=adapter.source.name + CPU_SUFFIX if self._cpu else None,
                source=adapter.source.directory.resolve().name,
                rank=max(pair.rank for pair in adapter.pairs),
            )
            for adapter in self._opened
        )

    def _write(self, stage: Staging, step: Step, adapter: LoraAdapter, suffix: str, write: Write) -> None:
        name = adapter.source.name + suffix
        done = step(name, 4 * adapter.parameters)
        stage.add(name, lambda path: write(path, adapter, self._spec, done))
