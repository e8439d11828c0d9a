"""`rk-gemma`: one command, each verb a module. What a verb works with is imported when it is called."""

from __future__ import annotations

from typing import NoReturn

from rk_gemma import __version__
from rk_gemma.cli import evaluate, export, plan, toolkit
from rk_gemma_runtime.cli import app


def run() -> NoReturn:
    """Put host and board verbs together and run the one that was asked for."""
    verbs = app.make_app(__version__)
    export.configure(verbs)
    evaluate.configure(verbs)
    plan.configure(verbs)
    toolkit.configure(verbs)
    app.run(verbs)
