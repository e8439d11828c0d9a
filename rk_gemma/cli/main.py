"""`rk-gemma`: one command, each verb a module that is imported when it is called."""

from __future__ import annotations

from rk_gemma import __version__
from rk_gemma.cli import evaluate, export
from rk_gemma_runtime.cli.app import make_app, run


def main() -> None:
    """Entry point of the `rk-gemma` command; never returns."""
    app = make_app(__version__)
    export.configure(app)
    evaluate.configure(app)
    run(app)
