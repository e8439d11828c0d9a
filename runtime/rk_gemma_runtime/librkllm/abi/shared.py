"""Structs that have not changed since the release that brought them."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_size_t


class RKLLMLoraAdapter(Structure):
    """In every layout since 1.1.0; later ones say so."""

    _fields_ = (
        ("lora_adapter_path", c_char_p),
        ("lora_adapter_name", c_char_p),
        ("scale", c_float),
    )


class RKLLMEmbedInput(Structure):
    _fields_ = (
        ("embed", POINTER(c_float)),
        ("n_tokens", c_size_t),
    )


class RKLLMTokenInput(Structure):
    _fields_ = (
        ("input_ids", POINTER(c_int32)),
        ("n_tokens", c_size_t),
    )


class RKLLMLoraParam(Structure):
    _fields_ = (("lora_adapter_name", c_char_p),)


class RKLLMPromptCacheParam(Structure):
    _fields_ = (
        ("save_prompt_cache", c_int),
        ("prompt_cache_path", c_char_p),
    )


class RKLLMResultLastHiddenLayer(Structure):
    _fields_ = (
        ("hidden_states", POINTER(c_float)),
        ("embd_size", c_int),
        ("num_tokens", c_int),
    )


class RKLLMResultLogits(Structure):
    """Since 1.2.0."""

    _fields_ = (
        ("logits", POINTER(c_float)),
        ("vocab_size", c_int),
        ("num_tokens", c_int),
    )


class RKLLMPerfStat(Structure):
    """Since 1.2.1. memory_usage_mb is the VmHWM of the whole process."""

    _fields_ = (
        ("prefill_time_ms", c_float),
        ("prefill_tokens", c_int),
        ("generate_time_ms", c_float),
        ("generate_tokens", c_int),
        ("memory_usage_mb", c_float),
    )


class RKLLMCrossAttnParam(Structure):
    """Since 1.2.1."""

    _fields_ = (
        ("encoder_k_cache", POINTER(c_float)),
        ("encoder_v_cache", POINTER(c_float)),
        ("encoder_mask", POINTER(c_float)),
        ("encoder_pos", POINTER(c_int32)),
        ("num_tokens", c_int),
    )
