"""Checkpoints of any size with random weights, written block by block."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from rk_gemma.checkpoint.config import read_spec
from rk_gemma.checkpoint.names import expected_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BLOCK = 1 << 22
GEMMA2_2B = {
    "vocab_size": 256000, "hidden_size": 2304, "num_hidden_layers": 5, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216, "query_pre_attn_scalar": 256,
}  # fmt: skip
HALF_BILLION = {
    "vocab_size": 32000, "hidden_size": 1024, "num_hidden_layers": 30, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 4096, "query_pre_attn_scalar": 128,
}  # fmt: skip
SMALL = {
    "vocab_size": 1024, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 64, "intermediate_size": 256, "query_pre_attn_scalar": 64,
}  # fmt: skip


def write_checkpoint(directory: Path, dims: dict[str, int], shards: int = 1, context: int = 4096) -> Path:
    """A Gemma 2 checkpoint in bf16 with weights of a plausible size; deterministic."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(_config(dims, context)))
    names = list(expected_shapes(read_spec(directory)).items())
    files = ["model.safetensors"] if shards == 1 else [
        f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)
    ]  # fmt: skip
    parts = [names[i * len(names) // shards : (i + 1) * len(names) // shards] for i in range(shards)]
    for file, part in zip(files, parts, strict=True):
        _write(directory / file, part)
    if shards > 1:
        where = {name: file for file, part in zip(files, parts, strict=True) for name, _ in part}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return directory


def _config(dims: dict[str, int], context: int) -> dict[str, Any]:
    return {
        **dims, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "max_position_embeddings": context,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "sliding_window": context, "hidden_activation": "gelu_pytorch_tanh",
        "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip


def _write(path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, shape in tensors:
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    block = _noise()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at > 0:
            file.write(block[: min(at, len(block))])
            at -= min(at, len(block))


def _noise() -> bytes:
    values = np.random.default_rng(7).normal(0.0, 0.03, BLOCK).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
