"""What a release lacks is refused by name, never called: a missing symbol or mode of this library, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UnsupportedCall
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


def since(can: Callable[[Layout], bool]) -> str:
    """Find the first release of which `can` is true."""
    return next(layout.releases[0] for layout in LAYOUTS.values() if can(layout))
