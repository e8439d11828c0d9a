"""What a profile says of the NPU and no file of a board shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.profile import holds_of
from rk_gemma_runtime.doctor.reader import quote

if TYPE_CHECKING:
    from rk_gemma_runtime.board.facts import Hold
    from rk_gemma_runtime.doctor.reader import Reader

DESCRIBED = "rk-gemma/described"


@dataclass(frozen=True)
class Described:
    """As in `board.Npu`; nothing of a real board."""

    fds: int | None = None
    holds: tuple[Hold, ...] = ()
    alignment: str | None = None
    multi_domain: bool | None = None


def read(reader: Reader) -> Described:
    """Read the text that a profile's tree has."""
    return reader.value(DESCRIBED, _parse, needed=False) or Described()


def _parse(text: str) -> Described:
    try:
        tree: dict[str, Any] = json.loads(text)
        fds, alignment, several = (tree.get(key) for key in ("fds", "iova_alignment", "multi_domain"))
        return Described(
            fds=None if fds is None else int(fds),
            holds=holds_of(tree),
            alignment=alignment if alignment in {"size", "page"} else None,
            multi_domain=several if isinstance(several, bool) else None,
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{quote(text)} does not describe an NPU") from None
