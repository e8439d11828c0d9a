"""What is fuzzed: each takes bytes and must come back, whatever they are."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fuzz.seeds import CUT, files_of
from rk_gemma_runtime.board.profile import _board
from rk_gemma_runtime.diagnosis import diagnose_stream
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.errors import RkGemmaError
from rk_gemma_runtime.memory.shape import from_config
from rk_gemma_runtime.supervisor.lines import parse_line

if TYPE_CHECKING:
    from collections.abc import Callable

NOWHERE = Path("/nonexistent")
# The files of a healthy board; the n-th part of an input stands for the n-th of them.
FILES = tuple(files_of("orangepi5-16gb"))


def explain(data: bytes) -> None:
    """Any bytes get a diagnosis that can be printed as JSON."""
    json.dumps(diagnose_stream(io.BytesIO(data)).tree())


def lines(data: bytes) -> None:
    """Any line of a library is a line."""
    line = parse_line(data.decode("utf-8", errors="replace"), 0.0)
    assert line.raw is not None


def doctor(data: bytes) -> None:
    """Any content of /proc and /sys gives findings."""
    parts = data.split(CUT)
    root = Root(NOWHERE, {name: part for name, part in zip(FILES, parts, strict=False) if part})
    examine(read_readings(root))


def profile(data: bytes) -> None:
    """A profile is a board or no profile."""
    with suppress(yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        tree = yaml.safe_load(data.decode("utf-8"))
        if isinstance(tree, dict):
            _board(tree)


def config(data: bytes) -> None:
    """A config.json is a shape or refused in one line."""
    with suppress(ValueError, RecursionError):
        tree: Any = json.loads(data)
        if isinstance(tree, dict):
            with suppress(RkGemmaError):
                from_config(tree, "fuzzed")


TARGETS: dict[str, Callable[[bytes], None]] = {f.__name__: f for f in (explain, doctor, lines, profile, config)}
