"""What a layout is: the types of one ABI and what its library can do."""

from __future__ import annotations

from ctypes import POINTER, c_char_p, c_int, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

Handle = c_void_p


class CallState(IntEnum):
    """LLMCallState since 1.1.0. WAITING: a token was consumed whose bytes end inside a character."""

    NORMAL = 0
    WAITING = 1
    FINISH = 2
    ERROR = 3
    GET_LAST_HIDDEN_LAYER = 4
    """Up to 1.1.4 only; later releases hand hidden states over in NORMAL."""


class InputType(IntEnum):
    """RKLLMInputType, the same in every layout."""

    PROMPT = 0
    TOKEN = 1
    EMBED = 2
    MULTIMODAL = 3


class InferMode(IntEnum):
    """RKLLMInferMode; LOGITS from 1.2.0."""

    GENERATE = 0
    LAST_HIDDEN_LAYER = 1
    LOGITS = 2


@dataclass(frozen=True)
class Layout:
    """One ABI. The types are ctypes classes; `functions` maps a symbol to (restype, argtypes)."""

    name: str
    releases: tuple[str, ...]
    structs: dict[str, Any]
    result_callback: Any
    functions: dict[str, tuple[Any, list[Any]]]
    init_takes_struct: bool
    """rkllm_init's third argument: RKLLMCallback* (from 1.3.0) or a function pointer."""
    has_logits: bool
    has_perf: bool
    sampling_per_run: bool
    reuses_prefix: bool
    """keep_history 0 compares the ids with the KV cache and prefills only what differs (from 1.2.0)."""
    stops_on_every_eos: bool
    """Several EOS ids are read from the model file (from 1.3.0); earlier ones know the first only."""

    def covers(self, version: str) -> bool:
        """Whether a library of this version has this layout."""
        return version in self.releases


def common_functions(param: Any, rkllm_input: Any, infer: Any, callback: Any) -> dict[str, tuple[Any, list[Any]]]:
    """The calls whose prototypes are the same in every layout, for this layout's types."""
    run = [Handle, POINTER(rkllm_input), POINTER(infer), c_void_p]
    return {
        "rkllm_createDefaultParam": (param, []),
        "rkllm_init": (c_int, [POINTER(Handle), POINTER(param), callback]),
        "rkllm_load_prompt_cache": (c_int, [Handle, c_char_p]),
        "rkllm_release_prompt_cache": (c_int, [Handle]),
        "rkllm_destroy": (c_int, [Handle]),
        "rkllm_run": (c_int, run),
        "rkllm_run_async": (c_int, run),
        "rkllm_abort": (c_int, [Handle]),
        "rkllm_is_running": (c_int, [Handle]),
    }
