"""Layout 1.2.0: release 1.2.0.

New: n_keep, embed_flash and the CPU mask, keep_history, logits, clear_kv_cache, set_chat_template. Hidden states come
in state NORMAL.
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_uint8,
    c_uint32,
    c_void_p,
)

from rk_gemma_runtime.librkllm.abi.layout import Handle, Layout, common_functions
from rk_gemma_runtime.librkllm.abi.shared import (
    RKLLMEmbedInput,
    RKLLMLoraAdapter,
    RKLLMLoraParam,
    RKLLMPromptCacheParam,
    RKLLMResultLastHiddenLayer,
    RKLLMResultLogits,
    RKLLMTokenInput,
)
from rk_gemma_runtime.librkllm.abi.v1_1_0 import RKLLMInput, RKLLMMultiModelInput


class RKLLMExtendParam(Structure):
    _fields_ = (
        ("base_domain_id", c_int32),
        ("embed_flash", c_int8),
        ("enabled_cpus_num", c_int8),
        ("enabled_cpus_mask", c_uint32),
        ("reserved", c_uint8 * 106),
    )


class RKLLMParam(Structure):
    _fields_ = (
        ("model_path", c_char_p),
        ("max_context_len", c_int32),
        ("max_new_tokens", c_int32),
        ("top_k", c_int32),
        ("n_keep", c_int32),
        ("top_p", c_float),
        ("temperature", c_float),
        ("repeat_penalty", c_float),
        ("frequency_penalty", c_float),
        ("presence_penalty", c_float),
        ("mirostat", c_int32),
        ("mirostat_tau", c_float),
        ("mirostat_eta", c_float),
        ("skip_special_token", c_bool),
        ("is_async", c_bool),
        ("img_start", c_char_p),
        ("img_end", c_char_p),
        ("img_content", c_char_p),
        ("extend_param", RKLLMExtendParam),
    )


class RKLLMInferParam(Structure):
    _fields_ = (
        ("mode", c_uint32),
        ("lora_params", POINTER(RKLLMLoraParam)),
        ("prompt_cache_params", POINTER(RKLLMPromptCacheParam)),
        ("keep_history", c_int),
    )


class RKLLMResult(Structure):
    _fields_ = (
        ("text", c_char_p),
        ("token_id", c_int32),
        ("last_hidden_layer", RKLLMResultLastHiddenLayer),
        ("logits", RKLLMResultLogits),
    )


# The header says void; returning an int is harmless there and needed from 1.2.1 on.
ResultCallback = CFUNCTYPE(c_int, POINTER(RKLLMResult), c_void_p, c_uint32)

STRUCTS = (
    RKLLMExtendParam, RKLLMParam, RKLLMLoraAdapter, RKLLMEmbedInput, RKLLMTokenInput, RKLLMMultiModelInput,
    RKLLMInput, RKLLMLoraParam, RKLLMPromptCacheParam, RKLLMInferParam, RKLLMResultLastHiddenLayer,
    RKLLMResultLogits, RKLLMResult,
)  # fmt: skip

LAYOUT = Layout(
    name="1.2.0",
    releases=("1.2.0",),
    structs={s.__name__: s for s in STRUCTS},
    result_callback=ResultCallback,
    functions={
        **common_functions(RKLLMParam, RKLLMInput, RKLLMInferParam, ResultCallback),
        "rkllm_clear_kv_cache": (c_int, [Handle, c_int]),
        "rkllm_set_chat_template": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
    },
)
