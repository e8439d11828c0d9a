"""What a layout is: the types of one ABI, and from them what its library can do."""

from __future__ import annotations

from ctypes import POINTER, c_char_p, c_int, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from rk_gemma_runtime.librkllm.abi.shared import RKLLMLoraAdapter

Handle = c_void_p


class CallState(IntEnum):
    """LLMCallState since 1.1.0. WAITING: a token was consumed whose bytes end inside a character."""

    NORMAL = 0
    WAITING = 1
    FINISH = 2
    ERROR = 3
    GET_LAST_HIDDEN_LAYER = 4
    """Up to 1.1.4 only; later releases hand hidden states over in NORMAL."""


class CallbackReturn(IntEnum):
    """What the result callback may return; before 1.2.1 the library does not look at it."""

    CONTINUE = 0
    PAUSE = 1
    RELEASE = 2
    """From 1.3.0: go on and free the output buffer of this result."""


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
    """One ABI. The types are ctypes classes; `functions` maps a symbol to (restype, argtypes). `second_hand`: not
    measured from the vendor's header."""

    name: str
    releases: tuple[str, ...]
    structs: dict[str, Any]
    result_callback: Any
    functions: dict[str, tuple[Any, list[Any]]]
    second_hand: bool = False

    def covers(self, version: str) -> bool:
        """Whether a library of this version has this layout."""
        return version in self.releases

    def has(self, struct: str, field: str) -> bool:
        """Whether this layout has `struct` with a field of this name."""
        return struct in self.structs and hasattr(self.structs[struct], field)

    @property
    def init_takes_struct(self) -> bool:
        """rkllm_init's third argument: RKLLMCallback* (from 1.3.0) or a function pointer."""
        return "RKLLMCallback" in self.structs

    @property
    def has_logits(self) -> bool:
        """GET_LOGITS, from 1.2.0."""
        return "RKLLMResultLogits" in self.structs

    @property
    def has_perf(self) -> bool:
        """Statistics at FINISH, from 1.2.1."""
        return "RKLLMPerfStat" in self.structs

    @property
    def has_batch(self) -> bool:
        """Several sequences in one run, from 1.2.1."""
        return self.has("RKLLMExtendParam", "n_batch")

    @property
    def can_pause(self) -> bool:
        """The callback's return value counts. The header made it an int in the release that brought n_batch."""
        return self.has_batch

    @property
    def clears_ranges(self) -> bool:
        """rkllm_clear_kv_cache takes positions, from 1.2.1."""
        return len(self.functions.get("rkllm_clear_kv_cache", (None, []))[1]) == 4

    @property
    def sampling_per_run(self) -> bool:
        """Sampling and max_new_tokens can be given with each run, from 1.3.0; earlier at init only."""
        return "RKLLMSamplingParam" in self.structs

    @property
    def releases_output(self) -> bool:
        """Output buffers stay until the callback returns RELEASE; came with the callback struct of 1.3.0."""
        return self.init_takes_struct

    @property
    def reuses_prefix(self) -> bool:
        """keep_history 0 compares the ids with the KV cache and prefills only what differs (from 1.2.0)."""
        return self.has("RKLLMInferParam", "keep_history")


def common_functions(param: Any, rkllm_input: Any, infer: Any, callback: Any) -> dict[str, tuple[Any, list[Any]]]:
    """Declare the calls that every layout has, with this layout's types."""
    run = [Handle, POINTER(rkllm_input), POINTER(infer), c_void_p]
    return {
        "rkllm_createDefaultParam": (param, []),
        "rkllm_init": (c_int, [POINTER(Handle), POINTER(param), callback]),
        "rkllm_load_lora": (c_int, [Handle, POINTER(RKLLMLoraAdapter)]),
        "rkllm_load_prompt_cache": (c_int, [Handle, c_char_p]),
        "rkllm_release_prompt_cache": (c_int, [Handle]),
        "rkllm_destroy": (c_int, [Handle]),
        "rkllm_run": (c_int, run),
        "rkllm_run_async": (c_int, run),
        "rkllm_abort": (c_int, [Handle]),
        "rkllm_is_running": (c_int, [Handle]),
    }
