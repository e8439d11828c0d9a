"""What the driver's probe measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.doctor.reader import quote
from rk_gemma_runtime.driver import ask

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

PROBE = "rk-gemma/probe"


def read(reader: Reader) -> ask.Result | None:
    """Read the probe's result; None if there was no probe."""
    return reader.value(PROBE, parse, needed=False)


def parse(text: str) -> ask.Result:
    """Parse the probe's JSON. Raises ValueError."""
    try:
        tree = json.loads(text)
        if tree.get("refused"):
            return ask.Result(refused=str(tree["refused"])[:400])
        return ask.Result(
            domain=int(tree["domain"]),
            largest=_size(tree["largest"]),
            largest_exact=tree["largest_exact"] is True,
            free=_size(tree["free"]),
            free_exact=tree["free_exact"] is True,
            alignment=tree["alignment"] if tree["alignment"] in {"page", "size"} else None,
            multi_domain=tree["multi_domain"] if isinstance(tree["multi_domain"], bool) else None,
            seconds=float(tree["seconds"]),
            notes=[str(note)[:200] for note in tree["notes"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{quote(text)} is not the result of a probe") from None


def _size(value: Any) -> int | None:
    size = None if value is None else int(value)
    if size is not None and size < 0:
        raise ValueError("a negative size")
    return size
