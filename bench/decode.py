"""Decode speed of the simulator's w8a8 beside llama.cpp's Q8_0: the same model, the same threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.processes import temporary_profile
from bench.synthetic import HALF_BILLION, write_checkpoint
from bench.table import Row
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime import Assistant

if TYPE_CHECKING:
    from pathlib import Path

THREADS = 2
PROMPT = [2, *range(200, 215)]


def measure(library: Path, bundle: Path, scratch: Path) -> list[Row]:
    """A row for the demo and one for a synthetic model of half a billion parameters."""
    source = write_checkpoint(scratch / "half", HALF_BILLION, context=1024)
    half = scratch / "half-bundle"
    export(source, half, Options(cpu="Q8_0"))
    os.environ.update(temporary_profile(scratch, threads=THREADS))
    try:
        return [_row("demo", library, bundle, 400), _row("0.5 B synthetic", library, half, 48)]
    finally:
        del os.environ["RK_GEMMA_SIM_PROFILE"]


def _row(name: str, library: Path, bundle: Path, tokens: int) -> Row:
    npu = max(_speed(library, bundle, "npu", tokens) for _ in range(2))
    cpu = max(_speed(library, bundle, "cpu", tokens) for _ in range(2))
    beside = f"llama.cpp Q8_0 {cpu:.1f} tokens/s: ratio {npu / cpu:.2f}"
    return Row(f"simulator w8a8 decode, {name}", f"{npu:.1f} tokens/s", beside, "ratio >= 0.5")


def _speed(library: Path, bundle: Path, backend: str, tokens: int) -> float:
    with Assistant.open(bundle, backend=backend, librkllmrt=str(library), threads=THREADS) as assistant:  # type: ignore[arg-type]
        for _piece in assistant.generate(PROMPT, max_tokens=tokens, temperature=0):
            pass
        assert assistant.last is not None
        return assistant.last.tokens_per_second
