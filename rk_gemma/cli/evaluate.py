"""`rk-gemma eval BUNDLE`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
