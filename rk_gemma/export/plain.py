"""A checkpoint as the toolkit reads it: a directory with nothing in it but what was checked here.

Weights that are plain already are linked; all others (int8, wrapped names, a head of its own, GGUF) are written out
tensor by tensor. Python files of a checkpoint, which transformers may run, and pickles are never taken along.
"""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from rk_gemma.checkpoint.config import read_json
from rk_gemma.checkpoint.header import metadata_of
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma.checkpoint import Checkpoint, ModelSpec, Tensor
    from rk_gemma.export.model import Model

WEIGHTS = "model.safetensors"
SHARD = "model-{:05d}-of-{:05d}.safetensors"
TEXTS = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
         "generation_config.json")  # fmt: skip
CLASSES = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM"}
TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
# Names of code, and of what was taken out of the weights.
DROPPED = ("auto_map", "quantization_config", "compression_config", "custom_pipelines", "_name_or_path")


def plain_bytes(checkpoint: Checkpoint) -> int:
    """Count what will be written; 0 if the weights can be linked."""
    if linkable(checkpoint):
        return 0
    return sum(tensor.rows * tensor.cols * _width(tensor) for tensor in checkpoint.tensors.values())


def linkable(checkpoint: Checkpoint) -> bool:
    """Whether every transformers reads the files as they are; it wants to be told that torch wrote them."""
    tensors = checkpoint.tensors
    if checkpoint.untied or not all(t.stored_plain and t.name == name for name, t in tensors.items()):
        return False
    files = _files(checkpoint)
    return all(path.suffix == ".safetensors" and metadata_of(path).get("format") == "pt" for path in files)


def _files(checkpoint: Checkpoint) -> list[Path]:
    return sorted({tensor.path for tensor in checkpoint.tensors.values()})


def write_plain(folder: Path, model: Model, on_bytes: Callable[[int], None] = lambda done: None) -> None:
    """Fill a new directory. Raises CheckpointError, and OSError where the disk is full."""
    folder.mkdir()
    checkpoint = model.checkpoint
    _put(folder / "config.json", _config(checkpoint))
    _tokenizer(folder, model)
    if linkable(checkpoint):
        _link(folder, checkpoint)
    else:
        write_weights(folder / WEIGHTS, checkpoint, on_bytes)


def _link(folder: Path, checkpoint: Checkpoint) -> None:
    """Link the files, with an index of their own where there are several."""
    files = _files(checkpoint)
    names = [WEIGHTS] if len(files) == 1 else [SHARD.format(i, len(files)) for i in range(1, len(files) + 1)]
    places = dict(zip(files, names, strict=True))
    for path, name in places.items():
        os.symlink(path.resolve(), folder / name)
    if len(files) > 1:
        homes = {name: places[tensor.path] for name, tensor in checkpoint.tensors.items()}
        _put(folder / f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": homes})


def write_weights(path: Path, checkpoint: Checkpoint, on_bytes: Callable[[int], None]) -> None:
    """Write safetensors in blocks of rows, each tensor in its own type and under transformers' name."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    tensors = checkpoint.tensors
    for name, tensor in tensors.items():
        size = tensor.rows * tensor.cols * _width(tensor)
        facts: Any = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        header[name], at = facts, at + size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            for block in _encoded(tensor):
                file.write(block)
                on_bytes(len(block))


def _encoded(tensor: Tensor) -> Iterator[bytes]:
    for block in tensor.blocks():
        if tensor.dtype == "F32":
            yield block.astype("<f4").tobytes()
        elif tensor.dtype == "F16":
            yield block.astype("<f2").tobytes()
        else:
            yield (block.view(np.uint32) >> 16).astype("<u2").tobytes()


def _width(tensor: Tensor) -> int:
    return 4 if tensor.dtype == "F32" else 2


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Write config.json in the spelling of transformers 4, and in that of 5 where it differs."""
    path = checkpoint.directory / "config.json"
    given = read_json(path) if path.is_file() else {}
    spec = checkpoint.spec
    kind = next(iter(checkpoint.tensors.values())).dtype
    dtype = TORCH["F32" if any(t.dtype == "F32" for t in checkpoint.tensors.values()) else kind]
    kept = {key: value for key, value in given.items() if key not in DROPPED}
    return {
        **kept, **_numbers(spec), "architectures": [CLASSES[spec.shape.family]], "torch_dtype": dtype, "dtype": dtype,
        "tie_word_embeddings": not checkpoint.untied,
    }  # fmt: skip


def _numbers(spec: ModelSpec) -> dict[str, Any]:
    shape = spec.shape
    numbers: dict[str, Any] = {
        "model_type": shape.family, "vocab_size": shape.vocab, "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim, "intermediate_size": shape.ffn, "rms_norm_eps": spec.rms_eps,
        "rope_theta": spec.rope_theta, "hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh",
        "bos_token_id": spec.bos, "eos_token_id": spec.eos[0] if len(spec.eos) == 1 else list(spec.eos),
    }  # fmt: skip
    if shape.family == "gemma2":
        numbers |= {
            "query_pre_attn_scalar": _whole(spec.query_scalar), "sliding_window": spec.window,
            "attn_logit_softcapping": spec.attn_softcap or None,
            "final_logit_softcapping": spec.final_softcap or None,
        }  # fmt: skip
    return numbers


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _tokenizer(folder: Path, model: Model) -> None:
    """Write the tokenizer and its settings, without names of code."""
    source = model.checkpoint.directory
    vocabulary = model.checkpoint.tokenizer
    data = vocabulary.read_bytes() if vocabulary is not None else model.text.vocabulary
    if not data:
        raise CheckpointError(
            f"{source}: no tokenizer, and the toolkit puts one into the .rkllm; copy tokenizer.model of the base"
            " model into the directory"
        )
    (folder / "tokenizer.model").write_bytes(data)
    for name in TEXTS:
        if (source / name).is_file():
            (folder / name).write_bytes((source / name).read_bytes())
    path = source / "tokenizer_config.json"
    stated = read_json(path) if path.is_file() else {}
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        **TOKENS,
        **stated,
    }
    _put(folder / "tokenizer_config.json", {k: v for k, v in settings.items() if k not in DROPPED})


def _put(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
