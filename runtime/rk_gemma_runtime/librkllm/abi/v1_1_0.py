"""Layout 1.1.0: releases 1.1.0 to 1.1.4."""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    Union,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_void_p,
)

from rk_gemma_runtime.librkllm.abi.layout import Layout, common_functions
from rk_gemma_runtime.librkllm.abi.shared import (
    RKLLMEmbedInput,
    RKLLMLoraAdapter,
    RKLLMLoraParam,
    RKLLMPromptCacheParam,
    RKLLMResultLastHiddenLayer,
    RKLLMTokenInput,
)


class RKLLMExtendParam(Structure):
    _fields_ = (
        ("base_domain_id", c_int32),
        ("reserved", c_uint8 * 112),
    )


class RKLLMParam(Structure):
    _fields_ = (
        ("model_path", c_char_p),
        ("max_context_len", c_int32),
        ("max_new_tokens", c_int32),
        ("top_k", c_int32),
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


class RKLLMMultiModelInput(Structure):
    _fields_ = (
        ("prompt", c_char_p),
        ("image_embed", POINTER(c_float)),
        ("n_image_tokens", c_size_t),
    )


class Input(Union):
    _fields_ = (
        ("prompt_input", c_char_p),
        ("embed_input", RKLLMEmbedInput),
        ("token_input", RKLLMTokenInput),
        ("multimodal_input", RKLLMMultiModelInput),
    )


class RKLLMInput(Structure):
    _anonymous_ = ("input",)
    _fields_ = (
        ("input_type", c_uint32),
        ("input", Input),
    )


class RKLLMInferParam(Structure):
    _fields_ = (
        ("mode", c_uint32),
        ("lora_params", POINTER(RKLLMLoraParam)),
        ("prompt_cache_params", POINTER(RKLLMPromptCacheParam)),
    )


class RKLLMResult(Structure):
    _fields_ = (
        ("text", c_char_p),
        ("token_id", c_int32),
        ("last_hidden_layer", RKLLMResultLastHiddenLayer),
    )


# The header says void; returning an int is harmless there and needed from 1.2.1 on.
ResultCallback = CFUNCTYPE(c_int, POINTER(RKLLMResult), c_void_p, c_uint32)

STRUCTS = (
    RKLLMExtendParam, RKLLMParam, RKLLMLoraAdapter, RKLLMEmbedInput, RKLLMTokenInput, RKLLMMultiModelInput,
    RKLLMInput, RKLLMLoraParam, RKLLMPromptCacheParam, RKLLMInferParam, RKLLMResultLastHiddenLayer, RKLLMResult,
)  # fmt: skip

LAYOUT = Layout(
    name="1.1.0",
    releases=("1.1.0", "1.1.1", "1.1.2", "1.1.3", "1.1.4"),
    structs={s.__name__: s for s in STRUCTS},
    result_callback=ResultCallback,
    functions=common_functions(RKLLMParam, RKLLMInput, RKLLMInferParam, ResultCallback),
)
