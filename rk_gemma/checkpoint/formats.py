"""Checkpoints that hold a Gemma in a form that cannot be exported: named, with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rk_gemma.checkpoint.header import Stored

ORIGINAL = "export the unquantised checkpoint that it was made from"
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
}  # fmt: skip
PICKLES = (".bin", ".pth", ".pt", ".ckpt")
OTHERS = {".gguf": "GGUF", ".npz": "NumPy (MLX)", ".msgpack": "Flax", ".h5": "Keras", ".onnx": "ONNX",
          ".rkllm": "RKLLM", ".tflite": "TFLite", ".task": "MediaPipe", ".sbs": "gemma.cpp"}  # fmt: skip
METHODS = {"fp8": "FP8", "fbgemm_fp8": "FP8", "finegrained_fp8": "FP8", "gptq": "GPTQ", "awq": "AWQ",
           "bitsandbytes": "bitsandbytes", "aqlm": "AQLM", "hqq": "HQQ", "mxfp4": "MXFP4"}  # fmt: skip


def method_of(config: Mapping[str, Any]) -> str:
    """Name the quantisation that config.json states; nothing for none."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if isinstance(stated, dict):
        method = str(stated.get("quant_method") or ("bitsandbytes" if "load_in_8bit" in stated else "unnamed"))
        width = next((f" {n}-bit" for n in (4, 8) if stated.get(f"load_in_{n}bit")), "")
        return METHODS.get(method, method) + width
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
        return stated or "integers with scales"
    if any(kind[0] in "IU" for kind in kinds):
        return stated or f"integers ({', '.join(sorted(k for k in kinds if k[0] in 'IU'))})"
    return ""


def foreign(directory: Path) -> str:
    """Say what weights a directory without safetensors holds instead, and what to do; nothing for none."""
    names = sorted(path.name for path in directory.iterdir())
    if any(name.endswith(".gguf") for name in names):
        first = next(name for name in names if name.endswith(".gguf"))
        return f"{first} is GGUF, which is quantised or converted already; {ORIGINAL}"
    for name in names:
        if name.endswith(PICKLES) and not is_training_state(name):
            advice = "load it with transformers and save_pretrained it, which writes safetensors"
            return f"{name} is a pickle, which may run code when it is read; {advice}"
        kind = next((kind for ending, kind in OTHERS.items() if name.endswith(ending)), "")
        if kind:
            return f"{name} is {kind}; export a checkpoint in safetensors"
    return ""


def is_training_state(name: str) -> bool:
    """Whether a file is what a trainer leaves beside the weights."""
    return name.startswith(("training_args", "optimizer", "scheduler", "rng_state", "scaler"))
