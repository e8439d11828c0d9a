"""Synthetic `.rkllm` files, written from the public reports on the format.

No real file is at hand: what reads these agrees with the reports, not with Rockchip's tools.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Any

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")
REPORTED = bytes.fromhex("9da9e670")  # the first bytes of the mask, as runtimes 1.0.0 to 1.3.1 show them
TYPES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "string": 8, "array": 9,
         "u64": 10, "i64": 11, "f64": 12}  # fmt: skip
CODES = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "?", "u64": "Q",
         "i64": "q", "f64": "d"}  # fmt: skip


def make_mask(seed: int) -> bytes:
    """A mask that begins as the reported one; another one for each seed behind that."""
    return REPORTED + random.Random(seed).randbytes(252)


def gemma_keys(arch: str = "gemma2", vocab: int = 256, **changes: Any) -> dict[str, tuple[str, Any]]:
    """Keys as a Gemma has them, each with its type."""
    keys: dict[str, tuple[str, Any]] = {
        "general.architecture": ("string", arch),
        "general.file_type": ("u32", 1),
        "rkllm.version": ("string", "1.3.1"),
        "rkllm.platform": ("u32", 0),
        "rkllm.core_num": ("u32", 3),
        "rkllm.max_context": ("u32", 4096),
        "rkllm.has_embedding": ("bool", True),
        "rkllm.has_tokenizer": ("bool", True),
        f"{arch}.vocab_size": ("u32", vocab),
        f"{arch}.context_length": ("u32", 8192),
        f"{arch}.embedding_length": ("u32", 64),
        f"{arch}.block_count": ("u32", 2),
        f"{arch}.feed_forward_length": ("u32", 128),
        f"{arch}.attention.head_count": ("u32", 4),
        f"{arch}.attention.head_count_kv": ("u32", 2),
        f"{arch}.attention.key_length": ("u32", 16),
        f"{arch}.attn_logit_softcapping": ("f32", 50.0),
        "tokenizer.ggml.model": ("string", "llama"),
        "tokenizer.ggml.tokens": ("strings", [f"t{i}" for i in range(vocab)]),
        "tokenizer.ggml.scores": ("f32s", [0.0] * vocab),
        "tokenizer.ggml.token_type": ("i32s", [1] * vocab),
        "tokenizer.ggml.bos_token_id": ("u32", 2),
        "tokenizer.ggml.eos_token_id": ("u32", 1),
    }
    keys.update(changes)
    return {name: value for name, value in keys.items() if value is not None}


@dataclass
class Rkllm:
    """A file to be written. `keys` by name, each with its type; an array's type ends in s."""

    keys: dict[str, tuple[str, Any]] = field(default_factory=gemma_keys)
    mask: bytes = field(default_factory=lambda: make_mask(0))
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("token_embd.weight", (64, 256)),
        ("output_norm.weight", (64,)),
    )
    body: int = 1 << 20
    trailer: bytes = b"rkllm-toolkit version: 1.3.1"

    def head(self) -> bytes:
        """All before the weights."""
        parts = [self.hide(b"GGUF"), U32.pack(3), U64.pack(len(self.tensors)), U64.pack(len(self.keys))]
        for name, (kind, value) in self.keys.items():
            parts += [self._text(name), self._value(kind, value)]
        for name, dims in self.tensors:
            parts += [self._text(name), U32.pack(len(dims)), *map(U64.pack, dims), U32.pack(1), U64.pack(0)]
        head = b"".join(parts)
        return head + bytes(-len(head) % 32)

    def data(self) -> bytes:
        """The whole file."""
        return self.head() + random.Random(1).randbytes(self.body) + self.trailer

    def hide(self, text: bytes) -> bytes:
        return bytes(byte ^ self.mask[place % 256] for place, byte in enumerate(text))

    def _text(self, text: str) -> bytes:
        data = text.encode()
        return U64.pack(len(data)) + self.hide(data)

    def _value(self, kind: str, value: Any) -> bytes:
        if kind == "string":
            return U32.pack(TYPES[kind]) + self._text(value)
        if kind.endswith("s"):
            of = kind[:-1]
            inner = (
                b"".join(map(self._text, value))
                if of == "string"
                else struct.pack(f"<{len(value)}{CODES[of]}", *value)
            )
            return U32.pack(9) + U32.pack(TYPES[of]) + U64.pack(len(value)) + inner
        return U32.pack(TYPES[kind]) + struct.pack(f"<{CODES[kind]}", value)
