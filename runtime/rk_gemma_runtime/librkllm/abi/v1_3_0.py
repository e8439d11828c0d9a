"""Layout 1.3.0: release 1.3.0."""

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
    c_int8,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)

from rk_gemma_runtime.librkllm.abi.layout import Handle, Layout, common_functions
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
        ("ignore_eos_token", c_bool),
        ("is_async", c_bool),
        ("extend_param", RKLLMExtendParam),
    )


class _Image(Structure):
    _fields_ = (
        ("image_embed", POINTER(c_float)),
        ("n_image_tokens", c_size_t),
        ("n_image", c_size_t),
        ("image_start", c_char_p),
        ("image_end", c_char_p),
        ("image_content", c_char_p),
        ("image_width", c_size_t),
        ("image_height", c_size_t),
    )


class _Video(Structure):
    _fields_ = (
        ("video_embed", POINTER(c_float)),
        ("n_frame_tokens", c_size_t),
        ("n_frame_per_video", c_size_t),
        ("n_video", c_size_t),
        ("video_start", c_char_p),
        ("video_end", c_char_p),
        ("video_content", c_char_p),
        ("frame_width", c_size_t),
        ("frame_height", c_size_t),
    )


class RKLLMMultiModalInput(Structure):
    _fields_ = (
        ("prompt", c_char_p),
        ("image", _Image),
        ("video", _Video),
    )


class _Input(Union):
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
        ("input", _Input),
    )


class RKLLMCrossAttnParam(Structure):
    _fields_ = (
        ("encoder_k_cache", POINTER(c_float)),
        ("encoder_v_cache", POINTER(c_float)),
        ("encoder_mask", POINTER(c_float)),
        ("encoder_pos", POINTER(c_int32)),
        ("num_tokens", c_int),
    )


class RKLLMSamplingParam(Structure):
    _fields_ = (
        ("top_k", c_int32),
        ("top_p", c_float),
        ("temperature", c_float),
        ("repeat_penalty", c_float),
        ("frequency_penalty", c_float),
        ("presence_penalty", c_float),
        ("mirostat", c_int32),
        ("mirostat_tau", c_float),
        ("mirostat_eta", c_float),
    )


class RKLLMInferParam(Structure):
    _fields_ = (
        ("mode", c_uint32),
        ("lora_params", POINTER(RKLLMLoraParam)),
        ("prompt_cache_params", POINTER(RKLLMPromptCacheParam)),
        ("sampling_params", POINTER(RKLLMSamplingParam)),
        ("keep_history", c_int),
        ("max_new_tokens", c_int32),
    )


class RKLLMResultLogits(Structure):
    _fields_ = (
        ("logits", POINTER(c_float)),
        ("vocab_size", c_int),
        ("num_tokens", c_int),
    )


class RKLLMPerfStat(Structure):
    _fields_ = (
        ("prefill_time_ms", c_float),
        ("prefill_tokens", c_int),
        ("generate_time_ms", c_float),
        ("generate_tokens", c_int),
        ("memory_usage_mb", c_float),
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
TokenizerCallback = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32)
EmbedCallback = CFUNCTYPE(c_int, c_void_p, POINTER(c_int32), c_uint64, c_void_p, c_uint64)


class RKLLMCallback(Structure):
    _fields_ = (
        ("result_callback", ResultCallback),
        ("result_userdata", c_void_p),
        ("tokenizer_callback", TokenizerCallback),
        ("tokenizer_userdata", c_void_p),
        ("embed_callback", EmbedCallback),
        ("embed_userdata", c_void_p),
    )


STRUCTS = (
    RKLLMExtendParam, RKLLMParam, RKLLMLoraAdapter, RKLLMEmbedInput, RKLLMTokenInput, RKLLMMultiModalInput,
    RKLLMInput, RKLLMLoraParam, RKLLMPromptCacheParam, RKLLMCrossAttnParam, RKLLMSamplingParam, RKLLMInferParam,
    RKLLMResultLastHiddenLayer, RKLLMResultLogits, RKLLMPerfStat, RKLLMResult, RKLLMCallback,
)  # fmt: skip

LAYOUT = Layout(
    name="1.3.0",
    releases=("1.3.0",),
    structs={s.__name__: s for s in STRUCTS},
    result_callback=ResultCallback,
    functions={
        **common_functions(RKLLMParam, RKLLMInput, RKLLMInferParam, POINTER(RKLLMCallback)),
        "rkllm_load_lora": (c_int, [Handle, POINTER(RKLLMLoraAdapter)]),
        "rkllm_clear_kv_cache": (c_int, [Handle, c_int, POINTER(c_int), POINTER(c_int)]),
        "rkllm_get_kv_cache_size": (c_int, [Handle, POINTER(c_int)]),
        "rkllm_set_chat_template": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
        "rkllm_set_function_tools": (c_int, [Handle, c_char_p, c_char_p, c_char_p]),
        "rkllm_set_cross_attn_params": (c_int, [Handle, POINTER(RKLLMCrossAttnParam)]),
    },
    init_takes_struct=True,
    has_logits=True,
    has_perf=True,
    sampling_per_run=True,
    reuses_prefix=True,
    stops_on_every_eos=True,
)
