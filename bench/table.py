"""One row of the table that `make bench` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A measured value, what it is held against, and the goal."""

    what: str
    value: str
    beside: str
    goal: str


def show(rows: list[Row]) -> None:
    """Print rows under aligned columns."""
    cells = [("what", "measured", "beside", "goal"), *((r.what, r.value, r.beside, r.goal) for r in rows)]
    widths = [max(len(c[i]) for c in cells) for i in range(4)]
    for cell in cells:
        print("  ".join(text.ljust(width) for text, width in zip(cell, widths, strict=True)).rstrip(), flush=True)
