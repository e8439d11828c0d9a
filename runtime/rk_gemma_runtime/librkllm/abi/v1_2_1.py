"""Layout 1.2.1: releases 1.2.1 to 1.2.3.

New: role and enable_thinking in front of every input, n_batch, statistics, cross attention, function tools, the size
of the KV cache, ranges to clear; the callback's return value counts (0 goes on, 1 pauses). 1.2.3 only renamed
RKLLMMultiModelInput.
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
    RKLLMCrossAttnParam,
    RKLLMEmbedInput,
    RKLLMLoraAdapter,
    RKLLMLoraParam,
    RKLLMPerfStat,
    RKLLMPromptCacheParam,
    RKLLMResultLastHiddenLayer,
    RKLLMResultLogits,
    RKLLMTokenInput,
)
from rk_gemma_runtime.librkllm.abi.v1_2_0 import RKLLMInferParam
from rk_gemma_runtime.librkllm.abi.v1_2_1b1 import Input, RKLLMMultiModelInput


class RKLLMExtendParam(Structure):
    _fields_ = (
        ("base_domain_id", c_int32),
        ("embed_flash", c_int8),
        ("enabled_cpus_num", c_int8),
        ("enabled_cpus_mask", c_uint32),
        ("n_batch", c_uint8),
        ("use_cross_attn", c_int8),
        ("reserved", c_uint8 * 104),
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


class RKLLMInput(Structure):
    _anonymous_ = ("input",)
    _fields_ = (
        ("role", c_char_p),
        ("enable_thinking", c_bool),
        ("input_type", c_uint32),
        ("input", Input),
    )


class RKLLMResult(Structure):
    _fields_ = (
        ("text", c_char_p),
        ("token_id", c_int32),
        ("last_hidden_layer", RKLLMResultLastHiddenLayer),
        ("logits", RKLLMResultLogits),
        ("perf", RKLLMPerfStat),
    )


ResultCallback = CFUNCTYPE(c_int, POINTER(RKLLMResult), c_void_p, c_uint32)

STRUCTS = (
    RKLLMExtendParam, RKLLMParam, RKLLMLoraAdapter, RKLLMEmbedInput, RKLLMTokenInput, RKLLMMultiModelInput,
    RKLLMInput, RKLLMLoraParam, RKLLMPromptCacheParam, RKLLMCrossAttnParam, RKLLMInferParam,
    RKLLMResultLastHiddenLayer, RKLLMResultLogits, RKLLMPerfStat, RKLLMResult,
)  # fmt: skip

LAYOUT = Layout(
    name="1.2.1",
    releases=("1.2.1", "1.2.2", "1.2.3"),
    structs={s.__name__: s for s in STRUCTS},
    result_callback=ResultCallback,
    functions={
        **common_functions(RKLLMParam, RKLLMInput, RKLLMInferParam, ResultCallback),
        "rkllm_clear_kv_cache": (c_int, [Handle, c_int, POINTER(c_int), POINTER(c_int)]),
        "rkllm_get_kv_cache_size": (c_int, [Handle, POINTER(c_int)]),
        "rkllm_set_chat_template": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
        "rkllm_set_function_tools": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
        "rkllm_set_cross_attn_params": (c_int, [Handle, POINTER(RKLLMCrossAttnParam)]),
    },
)
