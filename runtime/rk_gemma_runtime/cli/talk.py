"""What a verb says to the person, on stderr: stdout is the answer."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import EngineError, NpuError, RkGemmaError, UsageError, WeightsError
from rk_gemma_runtime.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {"google": "protobuf"}  # where a module's name is not its package's


def say(line: str) -> None:
    """One line to the person; what a file's name may hold cannot break it, nor can a reader that has gone."""
    with suppress(BrokenPipeError):
        print(f"rk-gemma: {one_line(line)}", file=sys.stderr, flush=True)


def complain(error: RkGemmaError) -> None:
    """The one line of an error: what, where, and what to do where that is known."""
    cause, remedy = _reason(error)
    say(f"error: {error}" + (f" [{cause}]" if cause else "") + (f" ({remedy})" if remedy else ""))


def _reason(error: RkGemmaError) -> tuple[str, str]:
    """The cause and what to do about it; empty where they are not known."""
    if isinstance(error, WeightsError):
        return error.cause, error.remedy
    named = error.named if isinstance(error, EngineError) else None
    if isinstance(error, NpuError):
        return named.cause if named else error.reason.value, error.remedy
    return (named.cause, named.remedy) if named else ("", "")


@contextmanager
def extra_needed(extra: str) -> Iterator[None]:
    """Turn a missing module into the sentence that says which extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = PACKAGES.get(str(error.name).partition(".")[0], error.name)
        raise UsageError(
            f"{package} is not installed; run in rk-gemma's source directory: pip install '.[{extra}]'"
        ) from error
