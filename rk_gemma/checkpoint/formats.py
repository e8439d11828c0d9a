"""Quantised checkpoints: which quantiser it was, by the tensors that it adds and by config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rk_gemma.checkpoint.header import Stored

# Endings of the tensors that a quantiser adds, most telling first; the words say who writes them.
ADDED = {
    ".quant_state.bitsandbytes__nf4": "bitsandbytes 4-bit (NF4)",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes 4-bit (FP4)",
    ".quant_map": "bitsandbytes 4-bit",
    ".absmax": "bitsandbytes 4-bit",
    ".SCB": "bitsandbytes 8-bit",
    ".weight_packed": "compressed-tensors",
    ".g_idx": "GPTQ",
    ".codebooks": "AQLM",
    ".Qidxs": "QuIP#",
    ".trellis": "EXL3",
    ".q_weight": "EXL2",
    ".weight_scale_inv": "FP8",
    "_blocks": "MXFP4",
    ".W_q": "HQQ",
    ".weight._data": "quanto",
    ".weight_qdata": "torchao",
    ".weight:qdata": "torchao",
    ".centroids.weight": "VPTQ",
    ".dense_weights": "SpQR",
    ".lookup_table": "SqueezeLLM",
    ".weight_Q4": "ONNX's 4-bit",
    ".tables": "HIGGS",
    ".weight_scales": "EETQ",
}  # fmt: skip
# How methods that are not written as they are called in config.json are.
METHODS = {"fbgemm_fp8": "FP8", "finegrained_fp8": "FP8", "compressed-tensors": "compressed-tensors", "spqr": "SpQR",
           "bitnet": "BitNet", "auto-round": "AutoRound", "intel/auto-round": "AutoRound", "modelopt": "ModelOpt",
           **{word: word for word in ("bitsandbytes", "torchao", "quanto", "quark", "marlin")}}  # fmt: skip
SHORT = 6  # letters; shorter names of methods are abbreviations


def method_of(config: Mapping[str, Any]) -> str:
    """Name the quantisation that config.json states; nothing for none."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if isinstance(stated, dict):
        method = str(stated.get("quant_method") or ("bitsandbytes" if "load_in_8bit" in stated else "unnamed"))
        width = next((f" {n}-bit" for n in (4, 8) if stated.get(f"load_in_{n}bit")), "")
        return METHODS.get(method, method.upper() if len(method) <= SHORT else method) + width
    return "MLX" if isinstance(config.get("quantization"), dict) else ""


def quantised(config: Mapping[str, Any], stored: Iterable[Stored]) -> str:
    """Name the quantisation that the tensors are in, by their names and types; nothing for plain numbers."""
    tensors = list(stored)
    names = {tensor.name for tensor in tensors}
    kinds = {tensor.dtype for tensor in tensors if tensor.name.endswith("weight")}  # not buffers, which are integers
    stated = method_of(config)
    for ending, kind in ADDED.items():
        if any(name.endswith(ending) for name in names):
            return kind
    if any(name.endswith(".qweight") for name in names):
        return stated or "GPTQ or AWQ"
    if any(kind.startswith("F8_") for kind in kinds):
        return "FP8"
    if any(name.endswith(".scales") for name in names):
        return "MLX" if "U32" in kinds else stated or "MLX"
    if any(name.endswith((".weight_scale", ".weight_zero_point")) for name in names):
        return stated or f"{'integers' if any(kind[0] in 'IU' for kind in kinds if kind) else 'weights'} with scales"
    if any(kind[0] in "IU" for kind in kinds if kind):
        return stated or f"integers ({', '.join(sorted(k for k in kinds if k[0] in 'IU'))})"
    return ""
