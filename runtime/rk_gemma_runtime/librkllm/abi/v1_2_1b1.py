"""Layout 1.2.1b1: release 1.2.1b1.

New: number and size of images. The symbols are those of 1.2.0, and so is every other struct.
"""

from __future__ import annotations

from ctypes import POINTER, Structure, Union, c_char_p, c_float, c_int, c_size_t, c_uint32

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
from rk_gemma_runtime.librkllm.abi.v1_2_0 import (
    ResultCallback,
    RKLLMExtendParam,
    RKLLMInferParam,
    RKLLMParam,
    RKLLMResult,
)


class RKLLMMultiModelInput(Structure):
    _fields_ = (
        ("prompt", c_char_p),
        ("image_embed", POINTER(c_float)),
        ("n_image_tokens", c_size_t),
        ("n_image", c_size_t),
        ("image_width", c_size_t),
        ("image_height", c_size_t),
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


STRUCTS = (
    RKLLMExtendParam, RKLLMParam, RKLLMLoraAdapter, RKLLMEmbedInput, RKLLMTokenInput, RKLLMMultiModelInput,
    RKLLMInput, RKLLMLoraParam, RKLLMPromptCacheParam, RKLLMInferParam, RKLLMResultLastHiddenLayer,
    RKLLMResultLogits, RKLLMResult,
)  # fmt: skip

LAYOUT = Layout(
    name="1.2.1b1",
    releases=("1.2.1b1",),
    structs={s.__name__: s for s in STRUCTS},
    result_callback=ResultCallback,
    functions={
        **common_functions(RKLLMParam, RKLLMInput, RKLLMInferParam, ResultCallback),
        "rkllm_clear_kv_cache": (c_int, [Handle, c_int]),
        "rkllm_set_chat_template": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
    },
)
