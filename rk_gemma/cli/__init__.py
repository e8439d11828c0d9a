"""The command line: `rk-gemma VERB`. Host verbs live here, board verbs in rk_gemma_runtime.cli."""

from __future__ import annotations

import gc

MODULES_STAY = 20_000  # new objects before a collection: among those of fresh modules there is nothing to collect


def main() -> None:
    """Entry point of the `rk-gemma` command; never returns. Ctrl-C is quiet from the first import on."""
    gc.set_threshold(MODULES_STAY)
    try:
        from rk_gemma.cli.verbs import run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
