"""Peak memory and speed of the exporter on a checkpoint of 2 GB with Gemma 2 2B's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.processes import peak_rss_mib
from bench.synthetic import GEMMA2_2B, write_checkpoint
from bench.table import Row

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
from pathlib import Path
from rk_gemma.export.pipeline import Options, export
export(Path({source!r}), Path({target!r}), Options())
"""


def measure(scratch: Path) -> list[Row]:
    """One row: model.sim in w8a8 and model.gguf in Q8_0 from four shards."""
    source = write_checkpoint(scratch / "large", GEMMA2_2B, shards=4)
    size = sum(p.stat().st_size for p in source.glob("*.safetensors"))
    peak, seconds = peak_rss_mib(CODE.format(source=str(source), target=str(scratch / "large-bundle")))
    speed = f"{size / 1e6 / seconds:.0f} MB/s of checkpoint ({size / 1e9:.2f} GB in {seconds:.0f} s)"
    return [Row("exporter, peak resident memory", f"{peak * 1.048576:.0f} MB", speed, "< 700 MB")]
