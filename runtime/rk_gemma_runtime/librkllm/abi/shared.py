"""Structs whose layout has not changed since 1.1.0."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_size_t


class RKLLMLoraAdapter(Structure):
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
