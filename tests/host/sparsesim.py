"""A model.sim of any size that takes no room: header and length, every weight a hole (docs/simulator.md)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ITEM = {"f16": 2, "f32": 4, "i8": 1}
NORMS = {"gemma": ("attn_norm", "ffn_norm"), "gemma2": ("attn_norm", "attn_post_norm", "ffn_norm", "ffn_post_norm")}
OFFSET_DIGITS = 14  # fixed, so that the header's length is known before the offsets are


def sparse_model(
    path: Path, *, layers: int, hidden: int, ffn: int, heads: int, kv_heads: int, head_dim: int, vocab: int,
    dtype: str = "w8a8", context: int = 4096, family: str = "gemma2",
) -> Path:  # fmt: skip
    """Write it and return its path. `dtype` as in the header, or f32: an fp16 file of a float32 checkpoint."""
    keys: dict[str, object] = {
        "family": family, "vocab": vocab, "hidden": hidden, "layers": layers, "heads": heads, "kv_heads": kv_heads,
        "head_dim": head_dim, "ffn": ffn, "context": context, "rms_eps": 1e-6, "rope_theta": 10000.0,
        "attn_scale": head_dim**-0.5, "embed_scale": hidden**0.5, "attn_softcap": 0, "final_softcap": 0, "window": 0,
        "sliding": "0" * layers, "dtype": "fp16" if dtype == "f32" else dtype, "bos": 2, "eos": 1,
        "platform": "RK3588", "toolkit": "1.3.0", "npu_cores": 3,
    }  # fmt: skip
    inputs = {"q": (heads * head_dim, hidden), "k": (kv_heads * head_dim, hidden), "v": (kv_heads * head_dim, hidden),
              "o": (hidden, heads * head_dim), "gate": (ffn, hidden), "up": (ffn, hidden),
              "down": (hidden, ffn)}  # fmt: skip
    tensors = [("embed", "f32" if dtype == "f32" else "f16", vocab, hidden), ("output_norm", "f32", 1, hidden)]
    for n in range(layers):
        tensors += [(f"blk.{n}.{name}", "f32", 1, hidden) for name in NORMS[family]]
        for name, (rows, cols) in inputs.items():
            tensors += _linear(f"blk.{n}.{name}", rows, cols, dtype)
    tensors += _linear("output", vocab, hidden, dtype)
    head = "".join(f"{key} {value}\n" for key, value in keys.items())
    lines, end = _placed(head, tensors)
    text = (head + "".join(lines)).encode()
    with path.open("wb") as file:
        file.write(b"RKGSIM\r\n" + struct.pack("<II", 1, len(text)) + text)
        file.truncate(end)
    return path


Tensor = tuple[str, str, int, int]


def _linear(name: str, rows: int, cols: int, dtype: str) -> Iterator[Tensor]:
    if dtype in ("fp16", "f32"):
        yield name, "f16" if dtype == "fp16" else "f32", rows, cols
        return
    group = int(dtype.partition("_g")[2] or cols)
    yield name, "i8", rows, cols
    yield f"{name}.scale", "f32", rows, cols // group


def _placed(head: str, tensors: list[Tensor]) -> tuple[list[str], int]:
    """The tensors' lines, and where the file ends."""
    sizes = [rows * cols * ITEM[kind] for _, kind, rows, cols in tensors]
    named = [f"tensor {name} {kind} {rows} {cols}" for name, kind, rows, cols in tensors]
    end = 16 + len(head)
    end += sum(len(f"{line} {'0' * OFFSET_DIGITS} {size}\n") for line, size in zip(named, sizes, strict=True))
    lines = []
    for line, size in zip(named, sizes, strict=True):
        offset = -(-end // 64) * 64
        lines.append(f"{line} {offset:0{OFFSET_DIGITS}d} {size}\n")
        end = offset + size
    return lines, end
