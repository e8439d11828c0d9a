"""The command line: `rk-gemma VERB`. Host verbs live here, board verbs in rk_gemma_runtime.cli."""

from rk_gemma.cli.main import main

__all__ = ["main"]
