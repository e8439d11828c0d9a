"""The writers of NPU weights: what the export asks of one, and which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rk_gemma.export.simwriter import SimWriter
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.lora.adapter import LoraAdapter
    from rk_gemma.export.model import Model
    from rk_gemma_runtime.bundle import NpuPart


class NpuWriter(Protocol):
    """Writes NPU weights of one type in one format, and the adapters that go with them. `format` as bundle.yaml has
    it; `file` is the name of the weights in the bundle, `adapter_suffix` follows an adapter's name."""

    @property
    def format(self) -> str: ...

    @property
    def file(self) -> str: ...

    @property
    def adapter_suffix(self) -> str: ...

    def check(self, spec: ModelSpec) -> None:
        """Raise UsageError, before anything is written, for a model that this writer cannot write."""

    def work(self, spec: ModelSpec) -> int:
        """Return how many bytes `write` will report to `on_bytes`."""

    def write(self, path: Path, model: Model, on_bytes: Callable[[int], None]) -> None:
        """Write the weights. Raises CheckpointError for values that do not fit the format."""

    def write_adapter(
        self, path: Path, adapter: LoraAdapter, spec: ModelSpec, on_bytes: Callable[[int], None]
    ) -> None:
        """Write an adapter; `on_bytes` as its own parameters are consumed, 4 bytes each. Raises CheckpointError."""

    def part(self, context: int) -> NpuPart:
        """Make the entry of bundle.yaml for the weights."""


WRITERS: dict[str, Callable[[str], NpuWriter]] = {SimWriter.format: SimWriter}


def npu_writer(name: str, dtype: str) -> NpuWriter | None:
    """Make the writer of a format for weights of a type; None for "none". Raises UsageError for an unknown format."""
    if name == "none":
        return None
    if name not in WRITERS:
        raise UsageError(f"unknown --npu {name!r}; choose {' or '.join([*WRITERS, 'none'])}")
    return WRITERS[name](dtype)
