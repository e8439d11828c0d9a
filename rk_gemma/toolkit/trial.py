"""Proof that an installed toolkit works: a tiny random Gemma, converted and read back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma.toolkit.conversion import convert
from rk_gemma.toolkit.result import Wanted, check_result
from rk_gemma.toolkit.settings import Settings, file_limit, steps
from rk_gemma.toolkit.tiny import SHAPE, write_tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.toolkit.homes import Environment

DTYPE = "w8a8"


def try_out(env: Environment, warn: Callable[[str], None]) -> str:
    """Convert it; return in words what came of it. Raises ToolkitError, BundleError."""
    settings = Settings(level=0)
    with tempfile.TemporaryDirectory(prefix="rk-gemma-toolkit-") as place:
        scratch = Path(place)
        write_tiny(scratch / "model")
        target = scratch / "model.rkllm"
        calls = steps(
            settings, env.toolkit, DTYPE, SHAPE.context, model=str(scratch / "model"), target=str(target), lora=None,
            dataset=None,
        )  # fmt: skip
        convert(env, calls, scratch, warn=warn)
        limit = file_limit(env.toolkit, SHAPE.context)
        check_result(target, Wanted(env.toolkit, settings.cores, limit, DTYPE, SHAPE), _without_size(warn))
        return f"{target.stat().st_size} bytes, {DTYPE}, {settings.cores} cores, {limit} tokens"


def _without_size(warn: Callable[[str], None]) -> Callable[[str], None]:
    """A tiny model makes a file that is too small for use, as it should."""
    return lambda line: None if "less than any model" in line else warn(line)
