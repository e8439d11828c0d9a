"""Directories that hold no weights in safetensors: what they hold instead, and what to do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from rk_gemma.checkpoint.values import cut

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ORIGINAL = "export the unquantised checkpoint that it was made from"
PICKLES = (".bin", ".pth", ".pt", ".ckpt")
# Names of files and folders, the surest first. A pickle's endings are shared by formats that are none.
KINDS = {
    r"openvino.*\.(bin|xml)": "OpenVINO", r"ggml.*\.bin": "GGML", r"params_shard_\d+\.bin|ndarray-cache\.json": "MLC",
    r".*\.onnx(_data|\.data)?": "ONNX", r".*\.npz": "NumPy (MLX)", r".*\.msgpack": "Flax", r".*\.(h5|keras)": "Keras",
    r".*\.rkllm": "RKLLM", r".*\.rknn": "RKNN", r".*\.tflite": "TFLite", r".*\.(task|litertlm)": "MediaPipe",
    r".*\.sbs": "gemma.cpp", r".*\.(mlpackage|mlmodelc|mlmodel)": "Core ML", r".*\.(engine|plan)": "TensorRT",
    r".*\.pte": "ExecuTorch", r".*\.pt2": "torch.export", r".*\.nemo": "NeMo", r".*\.llamafile": "llamafile",
    r"_METADATA|_CHECKPOINT_METADATA|manifest\.ocdbt": "Orbax (JAX)", r".*\.(zip|tar|gz|zst|xz|tgz|7z)": "packed",
}  # fmt: skip
UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2", ".download", ".tmp")
SAFETENSORS = "export a checkpoint in safetensors"


def foreign(directory: Path) -> str:
    """Say what a directory without safetensors holds instead, and what to do; nothing for none."""
    names = sorted(path.name for path in directory.iterdir())
    return (
        adapter(directory)
        or _by_name(names)
        or _sharded(directory, names)
        or _unfinished(names)
        or _deeper(directory)
        or _only_state(names)
    )


def adapter(directory: Path) -> str:
    """Say so if a directory is PEFT's, with the name of the base where it is told."""
    path = directory / "adapter_config.json"
    names = ("adapter_model.safetensors", "adapter_model.bin")
    if not path.is_file() and not any((directory / name).is_file() for name in names):
        return ""
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    whose = f" {cut(repr(base))}" if isinstance(base, str) and base else ""
    name = next((name for name in names if (directory / name).is_file()), path.name)
    return f"{name} is a LoRA adapter, not a model; merge it, or export its base{whose} with --lora-adapter"


def is_training_state(name: str) -> bool:
    """Whether a file is what a trainer leaves beside the weights."""
    return name.startswith(("training_args", "optimizer", "scheduler", "rng_state", "scaler"))


def _by_name(names: Iterable[str]) -> str:
    names = [name for name in names if not is_training_state(name)]
    for name in names:
        if name.endswith(".gguf"):
            return f"{name} is GGUF, which is quantised or converted already; {ORIGINAL}"
    for name in names:
        kind = next((kind for form, kind in KINDS.items() if re.fullmatch(form, name)), "")
        if kind:
            return f"{name} is {kind}; {SAFETENSORS}"
        if name.endswith(PICKLES):
            advice = "load it with transformers and save_pretrained it, which writes safetensors"
            return f"{name} is a pickle, which may run code when it is read; {advice}"
    return ""


def _sharded(directory: Path, names: Iterable[str]) -> str:
    """Recognise what distributed training saves: many files, one for each process."""
    for name in names:
        if name.startswith("global_step") and (directory / name).is_dir():
            return f"{name} is DeepSpeed's; join it with zero_to_fp32.py, which writes safetensors"
    if any(directory.glob("*.distcp")) or any(directory.glob("*/*.distcp")):
        return "torch's distributed checkpoint (.distcp); join it with accelerate merge-weights"
    return ""


def _unfinished(names: Iterable[str]) -> str:
    name = next((name for name in names if name.endswith(UNFINISHED)), "")
    return f"{name} is a download that was not finished; download the rest" if name else ""


def _deeper(directory: Path) -> str:
    """Find checkpoints, or models in another format, one folder below."""
    inner = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    whole = [path.name for path in inner if (path / "config.json").is_file() and any(path.glob("*.safetensors"))]
    if whole:
        which = f"in {whole[0]}; give that" if len(whole) == 1 else f"in {', '.join(whole[:3])}; give one of them"
        return f"no model here, but {which}"
    return next((f"{path.name}/{said}" for path in inner if (said := _by_name(_names(path)))), "")


def _names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError:  # somebody else's
        return []


def _only_state(names: Iterable[str]) -> str:
    name = next((name for name in names if is_training_state(name)), "")
    return f"{name} is a trainer's state, and the weights are not here; copy them too" if name else ""
