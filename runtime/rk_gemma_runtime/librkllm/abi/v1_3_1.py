"""Layout 1.3.1: release 1.3.1, second-hand.

Its header has not been seen: two public programs agree on `audio`, and everything else is taken from 1.3.0. A
1.3.0 library may be given this input as well: what it does not know stands behind what it reads.
"""

from __future__ import annotations

from ctypes import POINTER, Structure, Union, c_bool, c_char_p, c_float, c_int, c_size_t, c_uint32

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
from rk_gemma_runtime.librkllm.abi.v1_2_1 import ResultCallback, RKLLMExtendParam, RKLLMResult
from rk_gemma_runtime.librkllm.abi.v1_3_0 import (
    Image,
    RKLLMCallback,
    RKLLMInferParam,
    RKLLMParam,
    RKLLMSamplingParam,
    Video,
)


class Audio(Structure):
    _fields_ = (
        ("audio_embed", POINTER(c_float)),
        ("n_audio_tokens", c_size_t),
        ("n_audio", c_size_t),
        ("audio_start", c_char_p),
        ("audio_end", c_char_p),
        ("audio_content", c_char_p),
    )


class RKLLMMultiModalInput(Structure):
    _fields_ = (
        ("prompt", c_char_p),
        ("image", Image),
        ("video", Video),
        ("audio", Audio),
    )


class Input(Union):
    _fields_ = (
        ("prompt_input", c_char_p),
        ("embed_input", RKLLMEmbedInput),
        ("token_input", RKLLMTokenInput),
        ("multimodal_input", RKLLMMultiModalInput),
    )


class RKLLMInput(Structure):
    _anonymous_ = ("input",)
    _fields_ = (
        ("role", c_char_p),
        ("enable_thinking", c_bool),
        ("input_type", c_uint32),
        ("input", Input),
    )


STRUCTS = (
    RKLLMExtendParam, RKLLMParam, RKLLMLoraAdapter, RKLLMEmbedInput, RKLLMTokenInput, RKLLMMultiModalInput,
    RKLLMInput, RKLLMLoraParam, RKLLMPromptCacheParam, RKLLMCrossAttnParam, RKLLMSamplingParam, RKLLMInferParam,
    RKLLMResultLastHiddenLayer, RKLLMResultLogits, RKLLMPerfStat, RKLLMResult, RKLLMCallback,
)  # fmt: skip

LAYOUT = Layout(
    name="1.3.1",
    releases=("1.3.1",),
    structs={s.__name__: s for s in STRUCTS},
    result_callback=ResultCallback,
    functions={
        **common_functions(RKLLMParam, RKLLMInput, RKLLMInferParam, POINTER(RKLLMCallback)),
        "rkllm_clear_kv_cache": (c_int, [Handle, c_int, POINTER(c_int), POINTER(c_int)]),
        "rkllm_get_kv_cache_size": (c_int, [Handle, POINTER(c_int)]),
        "rkllm_set_chat_template": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
        "rkllm_set_function_tools": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
        "rkllm_set_cross_attn_params": (c_int, [Handle, POINTER(RKLLMCrossAttnParam)]),
    },
    second_hand=True,
)
