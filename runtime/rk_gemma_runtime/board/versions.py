"""Version numbers of drivers, libraries and toolkits, as tuples that compare."""

from __future__ import annotations

import re

# Nine digits: text from a file must not become a number that takes seconds to read.
_VERSION = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:(?:b|rc|beta|a)(\d{0,9}))?(?![\d.])", re.IGNORECASE)


def version_of(text: str) -> tuple[int, ...]:
    """Parse 0.9.8 as three numbers or more, 0.9 as 0.9.0; () for anything else."""
    parts = text.strip().removeprefix("v").split(".")
    if not all(p.isascii() and p.isdecimal() and len(p) < 10 for p in parts):
        return ()
    return tuple(int(p) for p in [*parts, "0", "0"][: max(3, len(parts))])


def version_key(text: str) -> tuple[int, ...]:
    """Parse 1.2.1b1 as (1, 2, 1, 0, 1), which is below 1.2.1 as (1, 2, 1, 1, 0); () for anything else."""
    shape = _VERSION.match(text.strip())
    if shape is None:
        return ()
    beta = shape[4]
    final = (1, 0) if beta is None else (0, int(beta or 0))
    return (int(shape[1]), int(shape[2]), int(shape[3] or 0), *final)


def release_of(text: str) -> tuple[int, ...]:
    """Return only the three numbers of `version_key`: 1.2.1b1 counts as 1.2.1."""
    return version_key(text)[:3]
