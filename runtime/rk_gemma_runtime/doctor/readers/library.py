"""librkllmrt.so as far as a text about it tells; who writes the text knows the binding."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.reader import quote

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

LIBRARY = "rk-gemma/library"


@dataclass(frozen=True)
class LibraryReading:
    """`problem` is why it cannot be used, "" if it can; `reason` the word of errors.NpuReason. `tried`: it was loaded
    in a process of its own. Without a `path` none was found."""

    path: str
    version: str
    layout: str
    machine: str
    missing: tuple[str, ...]
    problem: str
    reason: str
    tried: bool


def read(reader: Reader) -> LibraryReading | None:
    """Read what was found of the library; None if it was not looked for."""
    return reader.value(LIBRARY, _library, needed=False)


def _library(text: str) -> LibraryReading:
    try:
        tree = json.loads(text)
        words = {key: str(tree[key]) for key in ("path", "version", "layout", "machine", "problem", "reason")}
        return LibraryReading(**words, missing=tuple(map(str, tree["missing"])), tried=bool(tree["tried"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{quote(text)} does not describe a library") from None
