"""The standard streams of a verb: closed ones replaced at the start, what nobody takes dropped at the end."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def mend() -> None:
    """Replace a stream whose descriptor the caller closed by one that holds nothing and keeps nothing."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")


def drain() -> None:
    """Flush both streams; what a broken one still holds goes nowhere.

    Otherwise the interpreter's own flush at exit would print a traceback and turn the exit code into 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                stream.flush()
