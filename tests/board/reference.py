"""docs/simulator.md in NumPy: an own reader of model.sim and an own forward pass, token by token."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

DTYPES = {"f16": "<f2", "f32": "<f4", "i8": "i1", "u8": "u1"}
F = np.float32


@dataclass
class SimModel:
    keys: dict[str, str]
    tensors: dict[str, NDArray[Any]]

    def number(self, key: str) -> int:
        return int(self.keys[key])

    def real(self, key: str) -> Any:
        return F(float(self.keys[key]))


def read(path: Path) -> SimModel:
    blob = path.read_bytes()
    assert blob[:8] == b"RKGSIM\r\n"
    version, length = struct.unpack_from("<II", blob, 8)
    assert version == 1
    keys, tensors = {}, {}
    for line in blob[16 : 16 + length].decode().splitlines():
        key, _, value = line.partition(" ")
        if key != "tensor":
            keys[key] = value
            continue
        name, dtype, rows, cols, offset, size = value.split(" ")
        data = np.frombuffer(blob[int(offset) : int(offset) + int(size)], DTYPES[dtype])
        tensors[name] = data.reshape(int(rows), int(cols))
    return SimModel(keys, tensors)


@dataclass
class Reference:
    """Feed token ids one after the other; each step returns (logits, hidden state after the final norm)."""

    model: SimModel
    keys: list[list[Floats]] = field(default_factory=list)
    values: list[list[Floats]] = field(default_factory=list)
    # Per step, the least distance of an activation from the middle between two int8 steps.
    ties: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = [[] for _ in range(self.model.number("layers"))]
        self.values = [[] for _ in range(self.model.number("layers"))]

    def linear(self, name: str, x: Any) -> Any:
        weight = self.model.tensors[name]
        if weight.dtype != np.int8:
            return weight.astype(F) @ x
        scale = self.model.tensors[f"{name}.scale"]
        s = F(np.abs(x).max()) / F(127)
        if s == 0:
            return np.zeros(len(weight), F)
        self.ties[-1] = min(self.ties[-1], float(np.abs(np.abs(x / s) % 1 - 0.5).min()))
        xq = np.clip(np.rint(x / s), -127, 127).astype(np.int32)
        groups = scale.shape[1]
        products = (weight.astype(np.int32) * xq).reshape(len(weight), groups, -1).sum(-1)
        total = np.zeros(len(weight), F)
        for g in range(groups):
            total += scale[:, g] * products[:, g].astype(F)
        return s * total

    def norm(self, name: str, x: Any) -> Any:
        weight = self.model.tensors[name][0]
        return x * weight / np.sqrt(np.mean(x * x, dtype=F) + self.model.real("rms_eps"))

    def rotate(self, heads: Any, position: int) -> Any:
        half = heads.shape[1] // 2
        exponent = np.arange(half, dtype=np.float64) * 2 / heads.shape[1]
        frequency = (float(self.model.keys["rope_theta"]) ** -exponent).astype(F)
        angle = F(position) * frequency
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = heads[:, :half], heads[:, half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], 1)

    def attention(self, layer: int, x: Any) -> Any:
        m, at = self.model, f"blk.{layer}."
        heads, kv_heads, dim = m.number("heads"), m.number("kv_heads"), m.number("head_dim")
        position = len(self.keys[layer])
        q = self.rotate(self.linear(at + "q", x).reshape(heads, dim), position)
        self.keys[layer].append(self.rotate(self.linear(at + "k", x).reshape(kv_heads, dim), position))
        self.values[layer].append(self.linear(at + "v", x).reshape(kv_heads, dim))
        window = m.number("window") if m.keys["sliding"][layer] == "1" else 0
        first = max(0, position + 1 - window) if window else 0
        k, v = np.stack(self.keys[layer][first:]), np.stack(self.values[layer][first:])
        out = np.empty((heads, dim), F)
        for h in range(heads):
            kv = h // (heads // kv_heads)
            scores = m.real("attn_scale") * (k[:, kv] @ q[h])
            if cap := m.real("attn_softcap"):
                scores = cap * np.tanh(scores / cap)
            weights = np.exp(scores - scores.max())
            out[h] = (weights / weights.sum()) @ v[:, kv]
        return self.linear(at + "o", out.reshape(-1))

    def mlp(self, layer: int, x: Any) -> Any:
        gate, up = self.linear(f"blk.{layer}.gate", x), self.linear(f"blk.{layer}.up", x)
        u = F(np.sqrt(2 / np.pi)) * (gate + F(0.044715) * gate**3)
        return self.linear(f"blk.{layer}.down", F(0.5) * gate * (1 + np.tanh(u)) * up)

    def step(self, token: int) -> tuple[Floats, Floats]:
        m = self.model
        self.ties.append(1.0)
        x = m.tensors["embed"][token].astype(F) * m.real("embed_scale")
        gemma2 = m.keys["family"] == "gemma2"
        for n in range(m.number("layers")):
            for norm, block in (("attn", self.attention), ("ffn", self.mlp)):
                y = block(n, self.norm(f"blk.{n}.{norm}_norm", x))
                x = x + (self.norm(f"blk.{n}.{norm}_post_norm", y) if gemma2 else y)
        hidden = self.norm("output_norm", x)
        logits = self.linear("output", hidden)
        if cap := m.real("final_softcap"):
            logits = cap * np.tanh(logits / cap)
        return logits, hidden

    def run(self, ids: list[int]) -> tuple[Floats, Floats]:
        steps = [self.step(token) for token in ids]
        return np.stack([s[0] for s in steps]), np.stack([s[1] for s in steps])
