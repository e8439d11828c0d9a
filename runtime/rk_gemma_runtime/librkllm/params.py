"""RKLLMParam and RKLLMInferParam: options into structs, by the fields that this layout has."""

from __future__ import annotations

import ctypes
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import UnsupportedCall
from rk_gemma_runtime.librkllm.inputs import c_text
from rk_gemma_runtime.librkllm.options import default_cpus
from rk_gemma_runtime.librkllm.rules import require

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.librkllm.abi.layout import InferMode
    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.librkllm.options import InitOptions, RunOptions


def init_param(library: Library, model: Path, options: InitOptions) -> Any:
    """Fill RKLLMParam from the library's defaults: zeroed memory would mean n_batch 0, its default is 1. Raises
    UnsupportedCall."""
    _require(library, options)
    param = library.cdll.rkllm_createDefaultParam()
    param.model_path = os.fsencode(model)
    param.max_context_len = options.context
    param.max_new_tokens = options.max_new_tokens
    param.skip_special_token = options.skip_special
    param.is_async = False
    for name, value in asdict(options.sampling).items():
        setattr(param, name, value)
    if hasattr(param, "n_keep") and options.n_keep >= 0:
        param.n_keep = options.n_keep
    if hasattr(param, "ignore_eos_token"):
        param.ignore_eos_token = options.ignore_eos
    if options.image_tags is not None:
        param.img_start, param.img_end, param.img_content = map(c_text, options.image_tags)
    _extend(param.extend_param, options)
    return param


def _require(library: Library, options: InitOptions) -> None:
    if options.n_keep >= 0:
        require(library, "n_keep", lambda layout: layout.has("RKLLMParam", "n_keep"))
    if options.ignore_eos:
        require(library, "ignore_eos_token", lambda layout: layout.has("RKLLMParam", "ignore_eos_token"))
    if options.batch > 1:
        require(library, "multi-batch runs", lambda layout: layout.has_batch)
    if options.cross_attention:
        require(library, "cross attention", lambda layout: layout.has("RKLLMExtendParam", "use_cross_attn"))
    if options.cpus is not None:
        require(library, "choice of CPUs", lambda layout: layout.has("RKLLMExtendParam", "enabled_cpus_mask"))
    if options.image_tags is not None and not library.layout.has("RKLLMParam", "img_start"):
        raise UnsupportedCall(f"librkllmrt {library.version} takes image tags with the input (Media), not at init")
    if not options.embed_flash:
        require(library, "switch for embed_flash", lambda layout: layout.has("RKLLMExtendParam", "embed_flash"))


def _extend(part: Any, options: InitOptions) -> None:
    part.base_domain_id = options.base_domain
    if hasattr(part, "embed_flash"):
        part.embed_flash = int(options.embed_flash)
    cpus = set(options.cpus or default_cpus() or ())
    if hasattr(part, "enabled_cpus_mask") and cpus:
        part.enabled_cpus_num = len(cpus)
        part.enabled_cpus_mask = sum(1 << cpu for cpu in cpus)
    if hasattr(part, "n_batch"):
        part.n_batch = options.batch
    if hasattr(part, "use_cross_attn"):
        part.use_cross_attn = int(options.cross_attention)


def infer_param(library: Library, mode: InferMode, options: RunOptions) -> Any:
    """Fill a zeroed RKLLMInferParam with what was asked for. ctypes keeps what it points to alive. Raises
    UnsupportedCall."""
    structs = library.layout.structs
    infer = structs["RKLLMInferParam"]()
    infer.mode = mode
    if options.keep_history:
        require(library, "keep_history", lambda layout: layout.reuses_prefix)
        infer.keep_history = 1
    if options.sampling is not None:
        require(library, "sampling per run", lambda layout: layout.sampling_per_run)
        infer.sampling_params = ctypes.pointer(structs["RKLLMSamplingParam"](**asdict(options.sampling)))
    if options.max_new_tokens > 0:
        require(library, "max_new_tokens per run", lambda layout: layout.sampling_per_run)
        infer.max_new_tokens = options.max_new_tokens
    if options.adapter:
        infer.lora_params = ctypes.pointer(structs["RKLLMLoraParam"](c_text(options.adapter)))
    if options.save_cache is not None:
        infer.prompt_cache_params = ctypes.pointer(
            structs["RKLLMPromptCacheParam"](1, os.fsencode(options.save_cache))
        )
    return infer
