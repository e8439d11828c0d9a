"""The memory model against published figures: `python -m bench.fit [--plot FILE.png]` prints the tables of
docs/memory.md and draws its picture.

The figures are Rockchip's own (benchmark tables of rknn-llm, one row per independent sample); those of 1.1 kept
the embedding in RAM as float32.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rk_gemma_runtime.memory.dtypes import dtype_of
from rk_gemma_runtime.memory.need import MIB, peak_rss
from rk_gemma_runtime.memory.shape import Shape
from rk_gemma_runtime.memory.speed import speed_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "published"
WHATS = ("memory", "decode", "ttft")
OUTLIER = 0.15


@dataclass(frozen=True)
class Row:
    """One published figure: `what` memory (MiB), decode (tokens/s) or ttft (ms), as printed and as predicted."""

    release: str
    model: str
    dtype: str
    what: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative; above 0 the prediction is too large."""
        return self.predicted / self.published - 1


def shapes() -> dict[str, Shape]:
    """Every model of the tables."""
    tree = yaml.safe_load((DATA / "models.yaml").read_text(encoding="utf-8"))
    return {name: _shape(name, numbers) for name, numbers in tree.items()}


def _shape(name: str, numbers: list[int]) -> Shape:
    hidden, layers, heads, kv_heads, head_dim, ffn, vocab = numbers
    family = "gemma2" if name.startswith("gemma2") else "llama"
    return Shape(family, name, vocab, hidden, layers, heads, kv_heads, head_dim, ffn, 4096)


def rows() -> Iterator[Row]:
    """Every figure of every sample."""
    known = shapes()
    with (DATA / "rk3588.csv").open(encoding="utf-8", newline="") as file:
        for sample in csv.DictReader(file):
            yield from _figures(known[sample["model"]], sample)


def _figures(shape: Shape, sample: dict[str, str]) -> Iterator[Row]:
    dtype, release = dtype_of(sample["dtype"]), sample["release"]
    prompt, new = int(sample["seqlen"]), int(sample["new_tokens"])
    numbers = release.split(".")
    speed = speed_of(shape, dtype, prompt, (int(numbers[0]), int(numbers[1])))
    memory = peak_rss(shape, dtype, prompt + new, embed_flash=not release.startswith("1.1.")) / MIB
    predicted = {"memory": memory, "decode": speed.decode, "ttft": speed.ttft_s * 1000}
    printed = {"memory": sample["memory_mb"], "decode": sample["tok_s"], "ttft": sample["ttft_ms"]}
    for what in WHATS:
        if printed[what]:
            yield Row(release, shape.name, dtype.name, what, float(printed[what]), predicted[what])


def medians(found: list[Row]) -> dict[str, float]:
    """Median of the absolute relative errors, by figure."""
    return {what: statistics.median(abs(row.error) for row in found if row.what == what) for what in WHATS}


def main() -> None:
    """Print, and draw if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found = list(rows())
    print("| release | model | dtype | figure | published | predicted | error |\n|---|---|---|---|---|---|---|")
    for row in found:
        if row.model == "gemma2-2b" or abs(row.error) > OUTLIER:
            print(
                f"| {row.release} | {row.model} | {row.dtype} | {row.what} | {row.published:g} |"
                f" {row.predicted:.4g} | {row.error:+.1%} |"
            )
    for what, median in medians(found).items():
        print(f"{what}: {sum(row.what == what for row in found)} figures, median error {median:.1%}")
    if options.plot:
        _draw(found, options.plot)


def _draw(found: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    units = {"memory": "peak RSS, MiB", "decode": "decode, tokens/s", "ttft": "first token, ms"}
    for axes, what in zip(figure.subplots(1, 3), WHATS, strict=True):
        _draw_one(axes, [row for row in found if row.what == what], units[what])
    figure.savefig(path, dpi=100)


def _draw_one(axes: Any, found: list[Row], title: str) -> None:
    for label, colour, group in (
        ("w8a8", "#4477aa", [r for r in found if r.dtype == "w8a8" and r.model != "gemma2-2b"]),
        ("w8a8_gN", "#ccbb44", [r for r in found if r.dtype != "w8a8" and r.model != "gemma2-2b"]),
        ("Gemma 2 2B", "#ee6677", [r for r in found if r.model == "gemma2-2b"]),
    ):
        axes.loglog([r.published for r in group], [r.predicted for r in group], "o", color=colour, label=label, ms=5)
    ends = [min(r.published for r in found), max(r.published for r in found)]
    axes.loglog(ends, ends, "k-", linewidth=0.8)
    axes.set_xlabel(f"published: {title}")
    axes.set_ylabel("predicted")
    axes.legend(fontsize=8)


if __name__ == "__main__":
    main()
