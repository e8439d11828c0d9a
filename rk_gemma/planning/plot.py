"""A plan as a picture: memory by part, and the NPU's IOMMU domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.planning.picture import parts_of, title_of
from rk_gemma_runtime.board.facts import DOMAIN_BYTES
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.files import replacement
from rk_gemma_runtime.memory.need import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.memory.plan import Plan

COLOURS = {"weights": "#4477aa", "scales": "#66ccee", "scratch": "#ccbb44", "kv cache": "#228833",
           "embedding": "#ee6677", "group scales": "#99ddff", "runtime": "#bbbbbb"}  # fmt: skip
OTHERS = "#aa3377"


def write_plot(plan: Plan, path: Path) -> None:
    """Write a PNG, whole or not at all. Raises UsageError where it cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    figure.suptitle(f"{title_of(plan)}: {plan.verdict}", fontsize=10)
    _draw_memory(left, plan)
    _draw_domains(right, plan)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Save through a temporary file beside it, so that a full disk leaves nothing half-written."""
    try:
        with replacement(path) as file:
            figure.savefig(file, format="png", dpi=110)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _draw_memory(axes: Any, plan: Plan) -> None:
    base = 0.0
    for name, size in parts_of(plan).items():
        axes.bar(
            ["RAM"], [size / MIB], bottom=[base], color=COLOURS[name], label=f"{name} {size / MIB:.0f}", width=0.5
        )
        base += size / MIB
    available = plan.board.memory.available
    if available is not None:
        axes.axhline(
            available / MIB, color="black", linestyle="--", linewidth=1, label=f"available {available / MIB:.0f}"
        )
    axes.set_ylabel("MiB")
    axes.set_xlim(-0.7, 0.7)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)


def _draw_domains(axes: Any, plan: Plan) -> None:
    used = [(number, domain) for number, domain in enumerate(plan.space.domains) if domain.spans]
    for row, (_, domain) in enumerate(used):
        axes.barh(row, DOMAIN_BYTES / MIB, color="#f4f4f4", edgecolor="black", height=0.6)
        for span in domain.spans:
            colour = COLOURS.get(span.what, OTHERS)
            axes.barh(row, span.bytes / MIB, left=span.start / MIB, color=colour, height=0.6)
    axes.set_yticks(range(len(used)), [f"domain {number}" for number, _ in used])
    axes.invert_yaxis()
    axes.set_xlabel("I/O address, MiB")
    axes.set_title("NPU address space (others: purple)", fontsize=9)
