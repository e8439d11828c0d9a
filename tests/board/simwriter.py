"""Writes model.sim files for these tests, from docs/simulator.md alone."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

SAFETENSORS = {"F32": np.float32, "F16": np.float16}
HF_LINEAR = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
HF_NORM = {
    "gemma": {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    "gemma2": {
        "attn_norm": "input_layernorm",
        "attn_post_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_post_norm": "post_feedforward_layernorm",
    },
}


@dataclass
class Checkpoint:
    """Float weights under the names of model.sim, and its header keys."""

    keys: dict[str, Any]
    weights: dict[str, Array]
    pieces: list[bytes] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    vocabulary: list[tuple[str, float, int]] | None = None  # text, score and SentencePiece's type of each id

    def header(self, dtype: str) -> dict[str, Any]:
        return {**self.keys, "dtype": dtype.removesuffix("-rounded"), **self.overrides}


def read_safetensors(path: Path) -> dict[str, Array]:
    blob = path.read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        data = np.frombuffer(blob[begin:end], SAFETENSORS[info["dtype"]])
        tensors[name] = data.reshape(info["shape"])
    return tensors


def keys_from(config: dict[str, Any]) -> dict[str, Any]:
    gemma2 = config["model_type"] == "gemma2"
    layers = int(config["num_hidden_layers"])
    kinds = config.get("layer_types") or ["full_attention"] * layers
    scalar = config.get("query_pre_attn_scalar", config["head_dim"])
    return {
        "family": config["model_type"], "vocab": config["vocab_size"], "hidden": config["hidden_size"],
        "layers": layers, "heads": config["num_attention_heads"], "kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"], "ffn": config["intermediate_size"], "context": 128,
        "rms_eps": config["rms_norm_eps"], "rope_theta": config["rope_parameters"]["rope_theta"],
        "attn_scale": scalar**-0.5, "embed_scale": config["hidden_size"] ** 0.5,
        "attn_softcap": config["attn_logit_softcapping"] if gemma2 else 0,
        "final_softcap": config["final_logit_softcapping"] if gemma2 else 0,
        "window": config["sliding_window"] if gemma2 else 0,
        "sliding": "".join("1" if kind == "sliding_attention" else "0" for kind in kinds),
        "bos": 2, "eos": "1", "platform": "RK3588", "toolkit": "1.3.0", "npu_cores": 3,
    }  # fmt: skip


def load_checkpoint(folder: Path) -> Checkpoint:
    keys = keys_from(json.loads((folder / "config.json").read_text()))
    source = read_safetensors(folder / "model.safetensors")
    embed = source["model.embed_tokens.weight"]
    weights = {"embed": embed, "output": embed, "output_norm": source["model.norm.weight"] + 1}
    for n in range(keys["layers"]):
        for ours, theirs in HF_LINEAR.items():
            weights[f"blk.{n}.{ours}"] = source[f"model.layers.{n}.{theirs}.weight"]
        for ours, theirs in HF_NORM[keys["family"]].items():
            weights[f"blk.{n}.{ours}"] = source[f"model.layers.{n}.{theirs}.weight"] + 1
    return Checkpoint(keys, weights)


def synthetic(
    *, hidden: int = 512, ffn: int = 1024, layers: int = 2, vocab: int = 256, heads: int = 4, head_dim: int = 128
) -> Checkpoint:
    """A random Gemma 2 whose layers take every group size."""
    rng = np.random.default_rng(7)
    config = {
        "model_type": "gemma2", "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads // 2, "head_dim": head_dim,
        "intermediate_size": ffn, "rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 10000.0},
        "query_pre_attn_scalar": head_dim, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
    }  # fmt: skip
    keys = keys_from(config)
    shapes = {"q": (heads * head_dim, hidden), "k": (heads // 2 * head_dim, hidden),
              "v": (heads // 2 * head_dim, hidden), "o": (hidden, heads * head_dim),
              "gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}  # fmt: skip
    weights: dict[str, Array] = {"embed": rng.normal(0, 0.05, (vocab, hidden)).astype(np.float32)}
    weights["output"] = weights["embed"]
    weights["output_norm"] = rng.normal(1, 0.1, hidden).astype(np.float32)
    for n in range(layers):
        for name, shape in shapes.items():
            weights[f"blk.{n}.{name}"] = rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
        for name in HF_NORM["gemma2"]:
            weights[f"blk.{n}.{name}"] = rng.normal(1, 0.1, hidden).astype(np.float32)
    return Checkpoint(keys, weights)


def quantise(weight: Array, group: int) -> tuple[Array, Array]:
    out, size = weight.shape
    grouped = weight.astype(np.float32).reshape(out, -1, group or size)
    scale = np.abs(grouped).max(-1) / np.float32(127)
    divisor = np.where(scale == 0, np.float32(1), scale)[..., None]
    q = np.clip(np.rint(grouped / divisor), -127, 127).astype(np.int8)
    return q.reshape(out, size), scale.astype(np.float32)


def pieces_tensor(pieces: list[bytes]) -> Array:
    blob = b"".join(struct.pack("<H", len(piece)) + piece for piece in pieces)
    return np.frombuffer(blob, np.uint8)


def tensors_of(checkpoint: Checkpoint, dtype: str) -> dict[str, Array]:
    group = int(dtype.partition("_g")[2] or 0)
    tensors: dict[str, Array] = {}
    for name, weight in checkpoint.weights.items():
        if weight.ndim == 1:
            tensors[name] = weight.astype(np.float32)
        elif dtype == "fp16":
            tensors[name] = weight  # float32 stays what it is
        elif name == "embed" or dtype == "fp16-rounded":
            tensors[name] = weight.astype(np.float16)
        else:
            tensors[name], tensors[f"{name}.scale"] = quantise(weight, group)
    if checkpoint.pieces is not None:
        tensors["pieces"] = pieces_tensor(checkpoint.pieces)
    if checkpoint.vocabulary is not None:
        texts, scores, types = zip(*checkpoint.vocabulary, strict=True)
        tensors["vocab"] = pieces_tensor([text.encode() for text in texts])
        tensors["scores"], tensors["types"] = np.array(scores, np.float32), np.array(types, np.uint8)
    return tensors


NAMES = {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32",
         np.dtype(np.int8): "i8", np.dtype(np.uint8): "u8"}  # fmt: skip


def write(path: Path, header: dict[str, Any], tensors: dict[str, Array]) -> Path:
    """The header is laid out twice: offsets depend on its length, and are written with a fixed width."""

    def lines(start: int) -> bytes:
        text = "".join(f"{key} {value}\n" for key, value in header.items())
        offset = start
        for name, tensor in tensors.items():
            rows, cols = (1, tensor.size) if tensor.ndim == 1 else tensor.shape
            text += f"tensor {name} {NAMES[tensor.dtype]} {rows} {cols} {offset:012d} {tensor.nbytes}\n"
            offset += -(-tensor.nbytes // 64) * 64
        return text.encode()

    start = -(-(16 + len(lines(0))) // 64) * 64
    head = lines(start)
    blob = bytearray(b"RKGSIM\r\n" + struct.pack("<II", 1, len(head)) + head)
    for tensor in tensors.values():
        blob += b"\0" * (-len(blob) % 64) + tensor.tobytes()
    path.write_bytes(blob)
    return path


def read_vocabulary(path: Path, size: int) -> list[tuple[str, float, int]]:
    """Of a tokenizer.model, filled up with ids that no text becomes."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    pieces = [(p.piece, p.score, p.type) for p in model.pieces]
    return pieces + [("", 0.0, 5)] * (size - len(pieces))


def printed(vocabulary: list[tuple[str, float, int]]) -> list[bytes]:
    """What each id prints: nothing for control pieces and turn markers, one byte for a byte piece."""
    silent = {"<start_of_turn>", "<end_of_turn>"}
    return [
        b"" if kind in (2, 3) or text in silent
        else bytes([int(text[3:5], 16)]) if kind == 6
        else text.replace("\u2581", " ").encode()
        for text, _, kind in vocabulary
    ]  # fmt: skip


def write_checkpoint(path: Path, checkpoint: Checkpoint, dtype: str = "w8a8") -> Path:
    return write(path, checkpoint.header(dtype), tensors_of(checkpoint, dtype))
