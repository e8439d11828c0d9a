"""Device side of rk-gemma: a bundle becomes answers, on the RK3588 NPU or else on the CPU.

from rk_gemma_runtime import Assistant

with Assistant.open("gemma-2-2b-it-rk3588") as gemma:
    for piece in gemma.chat("Why is the sky blue?"):
        print(piece, end="", flush=True)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.aio import AsyncAssistant
    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.errors import NpuError, RkGemmaError

__all__ = ["Assistant", "AsyncAssistant", "NpuError", "RkGemmaError"]

# What the library prints is forwarded to `rk_gemma_runtime.library`; a program that sets up no logging hears nothing.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    """Import on first use: a worker process imports this package and needs neither."""
    if name == "Assistant":
        from rk_gemma_runtime.assistant import Assistant

        return Assistant
    if name == "AsyncAssistant":
        from rk_gemma_runtime.aio import AsyncAssistant

        return AsyncAssistant
    if name in {"NpuError", "RkGemmaError"}:
        from rk_gemma_runtime import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
