"""Checkpoints of any size for the host's tests, and the command line as a process that can be signalled.

The safetensors writer here is independent of the product's reader; test_weights.py holds both against the
safetensors package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float32]]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "gemma"
COMMAND = [sys.executable, "-c", "from rk_gemma.cli import main; main()"]

GEMMA2: dict[str, Any] = {
    "model_type": "gemma2", "vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0, "sliding_window": 8, "hidden_activation": "gelu_pytorch_tanh",
    "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
GEMMA1: dict[str, Any] = {
    **{k: v for k, v in GEMMA2.items() if "soft" not in k and k not in {"sliding_window", "query_pre_attn_scalar"}},
    "model_type": "gemma", "num_key_value_heads": 1,
}  # fmt: skip
GROUPED = {**GEMMA2, "hidden_size": 512, "num_attention_heads": 4, "head_dim": 128, "intermediate_size": 1024,
           "vocab_size": 128}  # fmt: skip


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes as transformers has them (modeling_gemma.py, modeling_gemma2.py)."""
    h, f, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] == "gemma2":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], h)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{n}_proj.weight": s for n, s in
                   {"q": (q, h), "k": (kv, h), "v": (kv, h), "o": (h, q)}.items()}  # fmt: skip
        shapes |= {f"{at}mlp.{n}_proj.weight": s for n, s in
                   {"gate": (f, h), "up": (f, h), "down": (h, f)}.items()}  # fmt: skip
        shapes |= {f"{at}{norm}.weight": (h,) for norm in norms}
    return {**shapes, "model.norm.weight": (h,)}


def random_weights(config: Mapping[str, Any], seed: int = 3) -> Arrays:
    """Weights that bfloat16 holds exactly."""
    rng = np.random.default_rng(seed)
    return {
        name: bf16_exact(rng.normal(0, 0.05, shape).astype(np.float32)) for name, shape in shapes_of(config).items()
    }


def bf16_exact(values: NDArray[np.float32]) -> NDArray[np.float32]:
    cut: NDArray[np.float32] = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return cut


def encoded(values: NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype("<f4" if dtype == "F32" else "<f2").tobytes()


def write_safetensors(path: Path, weights: Arrays, dtype: str = "BF16") -> Path:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    chunks, at = [], 0
    for name, values in weights.items():
        raw = encoded(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        chunks.append(raw)
        at += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (8 - len(head) % 8)  # as the package pads it, and never nothing
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(chunks))
    return path


def write_checkpoint(
    directory: Path, config: Mapping[str, Any] = GEMMA2, weights: Arrays | None = None, dtype: str = "BF16"
) -> Path:
    """A checkpoint directory without tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", random_weights(config) if weights is None else weights, dtype)
    return directory


def write_shards(directory: Path, weights: Arrays, count: int = 3) -> list[str]:
    """The same weights as COUNT shards and an index."""
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    table = {tensor: names[i % count] for i, tensor in enumerate(weights)}
    for shard in names:
        write_safetensors(directory / shard, {t: w for t, w in weights.items() if table[t] == shard})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (directory / "model.safetensors").unlink(missing_ok=True)
    return names


def environment() -> dict[str, str]:
    """A process of this tree, whatever the caller's environment says about rk-gemma."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RK_GEMMA_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runtime")])}


def start(*args: object, **options: Any) -> subprocess.Popen[bytes]:
    """`rk-gemma ARGS` in the background."""
    return subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), **options
    )


def errors_of(stderr: str) -> list[str]:
    """The error lines; there must be no traceback and nothing but progress lines before them."""
    assert "Traceback" not in stderr, stderr
    lines = stderr.splitlines()
    found = [line for line in lines if line.startswith("rk-gemma: error:")]
    assert not found or lines[-1] == found[-1], stderr
    return found
