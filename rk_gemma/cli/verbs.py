"""`rk-gemma`: one command, each verb a module. What a verb works with is imported when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from rk_gemma import __version__
from rk_gemma.cli import evaluate, export, pack, plan, pull, toolkit
from rk_gemma_runtime.cli import app

if TYPE_CHECKING:
    import typer


def whole_app() -> typer.Typer:
    """Put host and board verbs together."""
    verbs = app.make_app(__version__)
    for verb in (export, toolkit, pull, pack, evaluate, plan):
        verb.configure(verbs)
    return verbs


def run() -> NoReturn:
    """Run the verb that was asked for."""
    app.run(whole_app())
