"""Values from outside, checked before they reach a closed library: each becomes Python's own kind, or UsageError."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

from rk_gemma_runtime.errors import UsageError

INT32 = (1 << 31) - 1
SHOWN = 60


def whole(name: str, value: Any, least: int = 0, most: int = INT32) -> int:
    """An int, also of NumPy's kinds; True and 3.0 are none."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise UsageError(f"{name}: {shown(value)} is not a whole number from {least} to {most}")
    return number


def number(name: str, value: Any, least: float, most: float) -> float:
    """A finite float in [least, most], also of NumPy's kinds."""
    try:
        found = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not least <= found <= most:
        raise UsageError(f"{name}: {shown(value)} is not a number from {least:g} to {most:g}")
    return found


def flag(name: str, value: Any) -> bool:
    """True or False; a text such as "no" is neither."""
    if not isinstance(value, bool):
        raise UsageError(f"{name}: {shown(value)} is neither True nor False")
    return value


def text(name: str, value: Any) -> str:
    """A str that C can take: no NUL in it."""
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"{name}: {shown(value)} is not text")
    return value


def path(name: str, value: Any) -> str:
    """The path as text; Path objects are taken too."""
    return text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def shown(value: Any) -> str:
    """The value for a message, cut."""
    try:
        words = repr(value)
    except ValueError:  # more digits than Python prints
        words = f"a very long {type(value).__name__}"
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 3]}..."
