"""Device side of rk-gemma: a bundle becomes answers, on the RK3588 NPU or else on the CPU.

from rk_gemma_runtime import Assistant

with Assistant.open("gemma-2-2b-it-rk3588") as gemma:
    for piece in gemma.chat("Why is the sky blue?"):
        print(piece, end="", flush=True)
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.aio import AsyncAssistant, AsyncReply
    from rk_gemma_runtime.answer import Answer
    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.chat.template import Message
    from rk_gemma_runtime.errors import (
        BundleError,
        CheckpointError,
        EngineError,
        InputError,
        LibraryError,
        NoBackendError,
        NpuError,
        NpuReason,
        PromptError,
        RkGemmaError,
        TemplateError,
        UnsupportedCall,
        UsageError,
        WeightsError,
        WireError,
        WorkerDied,
        WorkerHung,
    )
    from rk_gemma_runtime.events import Applied, Degraded, Event, Noticed, Progress, Recovered
    from rk_gemma_runtime.jobs import Sampling
    from rk_gemma_runtime.model import Model
    from rk_gemma_runtime.options import Limits, Options, Preference
    from rk_gemma_runtime.reply import Reply

# What is where. Imported on first use: a worker process imports this package and needs none of it.
_HOMES = {
    "aio": ("AsyncAssistant", "AsyncReply"),
    "answer": ("Answer",),
    "assistant": ("Assistant",),
    "bundle": ("Bundle",),
    "chat.template": ("Message",),
    "errors": (
        "BundleError", "CheckpointError", "EngineError", "InputError", "LibraryError", "NoBackendError", "NpuError",
        "NpuReason", "PromptError", "RkGemmaError", "TemplateError", "UnsupportedCall", "UsageError", "WeightsError",
        "WireError", "WorkerDied", "WorkerHung",
    ),
    "events": ("Applied", "Degraded", "Event", "Noticed", "Progress", "Recovered"),
    "jobs": ("Sampling",),
    "model": ("Model",),
    "options": ("Limits", "Options", "Preference"),
    "reply": ("Reply",),
}  # fmt: skip

__all__ = [
    "Answer",
    "Applied",
    "Assistant",
    "AsyncAssistant",
    "AsyncReply",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Degraded",
    "EngineError",
    "Event",
    "InputError",
    "LibraryError",
    "Limits",
    "Message",
    "Model",
    "NoBackendError",
    "Noticed",
    "NpuError",
    "NpuReason",
    "Options",
    "Preference",
    "Progress",
    "PromptError",
    "Recovered",
    "Reply",
    "RkGemmaError",
    "Sampling",
    "TemplateError",
    "UnsupportedCall",
    "UsageError",
    "WeightsError",
    "WireError",
    "WorkerDied",
    "WorkerHung",
]  # fmt: skip

# What the library prints is forwarded to `rk_gemma_runtime.library`; a program that sets up no logging hears nothing.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
