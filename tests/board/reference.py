"""docs/simulator.md in NumPy: an own reader of model.sim and an own forward pass, token by token."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    # Layer to (A, B, factor), as an adapter has them.
    adapter: dict[str, tuple[Any, Any, float]] = field(default_factory=dict)
    half: bool = False  # keys and values are rounded to half precision
    # Per step, the least distance of an activation from the middle between two int8 steps.
    ties: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = [[] for _ in range(self.model.number("layers"))]
        self.values = [[] for _ in range(self.model.number("layers"))]

    def adapted(self, name: str, x: Any) -> Any:
        y = self.linear(name, x)
        if name not in self.adapter:
            return y
        a, b, factor = self.adapter[name]
        return y + F(factor) * (b @ (a @ x))

    def stored(self, rows: Any) -> Any:
        return rows.astype(np.float16).astype(F) if self.half else rows

    def remove(self, begin: int, end: int) -> None:
        """Positions [begin, end) go; those behind move down and their keys turn back."""
        for layer in range(len(self.keys)):
            moved = [self.stored(self.rotate(k, begin - end)) for k in self.keys[layer][end:]]
            self.keys[layer][begin:] = moved
            del self.values[layer][begin:end]

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
        q = self.rotate(self.adapted(at + "q", x).reshape(heads, dim), position)
        key = self.rotate(self.adapted(at + "k", x).reshape(kv_heads, dim), position)
        self.keys[layer].append(self.stored(key))
        self.values[layer].append(self.stored(self.adapted(at + "v", x).reshape(kv_heads, dim)))
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
        return self.adapted(at + "o", out.reshape(-1))

    def mlp(self, layer: int, x: Any) -> Any:
        gate, up = self.adapted(f"blk.{layer}.gate", x), self.adapted(f"blk.{layer}.up", x)
        u = F(np.sqrt(2 / np.pi)) * (gate + F(0.044715) * gate**3)
        return self.adapted(f"blk.{layer}.down", F(0.5) * gate * (1 + np.tanh(u)) * up)

    def embedded(self, token: int) -> Floats:
        row: Floats = self.model.tensors["embed"][token].astype(F) * self.model.real("embed_scale")
        return row

    def step(self, entry: int | Floats) -> tuple[Floats, Floats]:
        """A token, or a row that enters the first layer."""
        m = self.model
        self.ties.append(1.0)
        x = entry if isinstance(entry, np.ndarray) else self.embedded(entry)
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

    def run(self, entries: Sequence[int | Floats]) -> tuple[Floats, Floats]:
        steps = [self.step(entry) for entry in entries]
        return np.stack([s[0] for s in steps]), np.stack([s[1] for s in steps])

    def greedy(self, entries: Sequence[int | Floats], count: int) -> list[int]:
        """The tokens that follow; each but the last is computed too."""
        logits, found = self.run(entries)[0][-1], list[int]()
        while len(found) < count:
            found.append(int(logits.argmax()))
            logits = self.step(found[-1])[0] if len(found) < count else logits
        return found
