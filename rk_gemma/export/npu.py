"""The writers of NPU weights: what the export asks of one, and which there are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rk_gemma.export.rkllmwriter import Preparation, RkllmWriter
from rk_gemma.export.simwriter import SimWriter
from rk_gemma.toolkit.settings import Settings
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.lora.adapter import LoraAdapter
    from rk_gemma.export.model import Model
    from rk_gemma_runtime.bundle import Adapter, NpuPart


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


@runtime_checkable
class Converter(NpuWriter, Protocol):
    """A writer that works through another program, for long, and has to see the whole before it begins."""

    def prepare(self, model: Model, adapters: int) -> Preparation:
        """Refuse what cannot go well, and say what may not. Raises UsageError, InputError."""

    def own_adapter(self) -> Adapter | None:
        """Return the entry of an adapter that the conversion itself makes; None for none."""

    def write_own(self, path: Path) -> None:
        """Write that adapter."""


WRITERS: dict[str, Callable[[str], NpuWriter]] = {SimWriter.format: SimWriter, RkllmWriter.format: RkllmWriter}


def npu_writer(name: str, dtype: str, settings: Settings | None = None) -> NpuWriter | None:
    """Make the writer of a format for weights of a type; None for "none". `settings` are the toolkit's. Raises
    UsageError for an unknown format, and InputError where there is no toolkit."""
    if settings and name != RkllmWriter.format and replace(settings, context=0) != Settings():
        raise UsageError(f"--npu {name} does not use the toolkit; leave out its options, or give --npu rkllm")
    if name == "none":
        return None
    if name not in WRITERS:
        raise UsageError(f"unknown --npu {name!r}; choose {' or '.join([*WRITERS, 'none'])}")
    if WRITERS[name] is RkllmWriter:
        return RkllmWriter(dtype, settings)
    return WRITERS[name](dtype)
