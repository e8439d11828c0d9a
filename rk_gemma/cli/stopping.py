"""What the verbs that write a bundle say when they are stopped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rk_gemma_runtime.cli.talk import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def told_when_stopped() -> Iterator[Callable[[str], None]]:
    """Say the latest line given, or that nothing was written, when Ctrl-C or SIGTERM ends the verb."""
    lines = ["stopped before anything was written"]
    try:
        yield lines.append
    except (KeyboardInterrupt, SystemExit):
        say(lines[-1])
        raise
