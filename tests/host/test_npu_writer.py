"""A second writer of NPU weights fits into the export as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosttools import DATA, GEMMA2, write_checkpoint
from lorakit import halves, module_names, write_peft

from rk_gemma.export import npu
from rk_gemma.export.lora.sources import LoraSource
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.bundle import NpuPart
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.lora.adapter import LoraAdapter
    from rk_gemma.export.model import Model

    OnBytes = Callable[[int], None]


class OtherWriter:
    """Writes what it was given, as text."""

    format, file, adapter_suffix = "rkllm", "model.rkllm", ".lora.rkllm"

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def check(self, spec: ModelSpec) -> None:
        if spec.shape.family == "gemma":
            raise UsageError("Gemma 1 is not for this writer")

    def work(self, spec: ModelSpec) -> int:
        return spec.shape.layers

    def write(self, path: Path, model: Model, on_bytes: OnBytes) -> None:
        path.write_text(f"{model.spec.shape.name} {self.dtype} {model.eos}")
        on_bytes(1)

    def write_adapter(self, path: Path, adapter: LoraAdapter, spec: ModelSpec, on_bytes: OnBytes) -> None:
        path.write_text(adapter.source.name)

    def part(self, context: int) -> NpuPart:
        return NpuPart(self.file, self.format, self.dtype, "RK3588", "1.2.3", context, 3)


@pytest.fixture(autouse=True)
def two_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(npu.WRITERS, "rkllm", OtherWriter)


def test_the_export_has_what_the_other_writer_made(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "base", GEMMA2)
    adapter = LoraSource("x", write_peft(tmp_path / "peft", halves(GEMMA2, module_names(range(2)))))
    bundle = export(source, tmp_path / "out", Options("rkllm", "w8a8", "none", adapters=(adapter,)))
    bundle.verify()
    assert bundle.manifest.npu == NpuPart("model.rkllm", "rkllm", "w8a8", "RK3588", "1.2.3", 64, 3)
    assert (tmp_path / "out" / "model.rkllm").read_text() == "gemma2 w8a8 (1,)"
    assert (bundle.manifest.adapters[0].npu, bundle.manifest.adapters[0].cpu) == ("x.lora.rkllm", None)
    assert set(bundle.manifest.files) == {"model.rkllm", "x.lora.rkllm"}


def test_its_refusal_comes_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not for this writer"):
        export(DATA / "tiny-gemma1", tmp_path / "out", Options("rkllm"))
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown --npu 'tpu'; choose sim or rkllm or none$"):
        export(DATA / "tiny-gemma2", tmp_path / "out", Options("tpu"))
