"""A reader of model.sim written from docs/simulator.md alone. Anything the document forbids is an AssertionError."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NUMPY = {"f16": "<f2", "f32": "<f4", "i8": "i1", "u8": "u1"}
KEYS = (
    "family vocab hidden layers heads kv_heads head_dim ffn context rms_eps rope_theta attn_scale embed_scale"
    " attn_softcap final_softcap window sliding dtype bos eos platform toolkit npu_cores"
).split()


@dataclass(frozen=True)
class SimFile:
    keys: dict[str, str]
    dtypes: dict[str, str]
    tensors: dict[str, NDArray[Any]]

    def pieces(self) -> list[bytes]:
        """What each id prints."""
        return self.table("pieces")

    def table(self, name: str) -> list[bytes]:
        """A tensor of texts: u16 length and bytes, once per id."""
        raw, found, at = self.tensors[name].tobytes(), [], 0
        while at < len(raw):
            (length,) = struct.unpack_from("<H", raw, at)
            found.append(raw[at + 2 : at + 2 + length])
            at += 2 + length
        assert at == len(raw)
        return found

    def linear(self, name: str) -> NDArray[np.float64]:
        """A linear layer's weights, dequantised."""
        values = self.tensors[name].astype(np.float64)
        if self.dtypes[name] == "f16":
            return values
        scale = self.tensors[f"{name}.scale"].astype(np.float64)
        return values * scale.repeat(values.shape[1] // scale.shape[1], axis=1)


def read_sim(path: Path) -> SimFile:
    """model.sim."""
    file = read_container(path)
    assert list(file.keys) == KEYS
    return file


def read_container(path: Path) -> SimFile:
    """Any file in model.sim's container."""
    raw = path.read_bytes()
    assert raw[:8] == b"RKGSIM\r\n"
    version, length = struct.unpack_from("<II", raw, 8)
    assert version == 1
    end = 16 + length
    keys: dict[str, str] = {}
    dtypes: dict[str, str] = {}
    tensors: dict[str, NDArray[Any]] = {}
    spans = [(0, end)]
    for line in raw[16:end].decode("utf-8").splitlines():
        if not line.startswith("tensor "):
            assert not tensors, "keys stand before tensors"
            key, value = line.split(" ")
            assert key not in keys
            keys[key] = value
            continue
        name, dtype, *numbers = line.split(" ")[1:]
        rows, cols, offset, size = map(int, numbers)
        values = np.frombuffer(raw[offset : offset + size], NUMPY[dtype])
        assert offset % 64 == 0
        assert name not in tensors
        spans.append((offset, offset + size))
        dtypes[name], tensors[name] = dtype, values.reshape(rows, cols)
    spans.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), "tensors overlap"
    assert spans[-1][1] == len(raw), "bytes after the last tensor"
    return SimFile(keys, dtypes, tensors)
