"""How far an export is: a bar on a terminal, plain lines elsewhere (both on stderr)."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[str, int], Callable[[int], None]]


@contextmanager
def reporter() -> Iterator[Step]:
    """Yields `step(name, total_bytes)`, which returns a function to be told of bytes done."""
    if not sys.stderr.isatty():
        yield _plain_step
        return
    columns = (TextColumn("{task.description:>12}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:

        def step(name: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(name, total=total)
            return lambda done: bar.advance(task, done)

        yield step


def _plain_step(name: str, total: int) -> Callable[[int], None]:
    seen, told = 0, 0
    tell(f"{name}: writing")

    def advance(done: int) -> None:
        nonlocal seen, told
        seen += done
        tenth = min(10, 10 * seen // max(1, total))
        if tenth > told and tenth < 10 and total > 64 << 20:
            tell(f"{name}: {10 * tenth} %")
        told = max(told, tenth)

    return advance


def tell(line: str) -> None:
    """Print a line on stderr."""
    with suppress(BrokenPipeError):  # an export does not end because nobody watches it any longer
        print(line, file=sys.stderr, flush=True)
