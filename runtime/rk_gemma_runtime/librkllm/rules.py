"""What a release lacks is refused by name, never called: a missing symbol or mode of this library, and since when."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import NpuError, NpuReason, UnsupportedCall
from rk_gemma_runtime.librkllm.abi import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.librkllm.abi import Layout
    from rk_gemma_runtime.librkllm.library import Library


def require_symbol(library: Library, symbol: str) -> None:
    """Raise UnsupportedCall if the library does not have `symbol`."""
    if symbol not in library.layout.functions:
        require(library, symbol, lambda layout: symbol in layout.functions)
    if not hasattr(library.cdll, symbol):
        raise UnsupportedCall(f"{library.path}: this librkllmrt {library.version} does not export {symbol}")


def require(library: Library, what: str, can: Callable[[Layout], bool]) -> None:
    """Raise UnsupportedCall, naming both versions, unless `can(layout)`."""
    if not can(library.layout):
        raise UnsupportedCall(f"librkllmrt {library.version} has no {what}; it came with {since(can)}")


def require_release(library: Library, needed: str) -> None:
    """Raise NpuError if the library is older than the toolkit that made a model. A library that names no version is
    taken for the newest that it may be; a beta counts as its release."""
    stated = library.identity.version or library.layout.releases[-1]
    if needed and _numbers(stated) < _numbers(needed):
        text = f"{library.path}: librkllmrt {stated} does not run a model of rkllm-toolkit {needed}, which is newer"
        raise NpuError(f"{text}: librkllmrt {needed} or newer is needed", NpuReason.MODEL_VERSION)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", version)[:3]]


def since(can: Callable[[Layout], bool]) -> str:
    """Find the first release of which `can` is true."""
    return next(layout.releases[0] for layout in LAYOUTS.values() if can(layout))
