"""Tensors of a safetensors checkpoint, read in blocks of rows with bounded memory.

The safetensors package maps whole files, which counts towards resident memory, and its NumPy side has no
bfloat16; so the (small, documented) format is read here: a u64 header length, a JSON header with dtype, shape and
data_offsets, then the data (https://github.com/huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rk_gemma.checkpoint.config import ModelSpec, read_spec
from rk_gemma_runtime.bundle import sha256_of
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
HEADER_LIMIT = 100_000_000  # the format's own limit
BLOCK_BYTES = 16 << 20
HALF_MAX = 65504.0
IMPLAUSIBLE = 1e6  # no Gemma weight comes near; one flipped exponent bit does


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies. `shape` has one or two dimensions."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def rows(self) -> int:
        """Rows of a matrix; 1 for a vector."""
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def cols(self) -> int:
        """Length of a row."""
        return self.shape[-1]

    def blocks(self) -> Iterator[Array]:
        """Read float32 blocks of whole rows, about 16 MiB each. Raises CheckpointError on NaN, inf or nonsense."""
        step = max(1, BLOCK_BYTES // (4 * self.cols))
        with self.path.open("rb", buffering=0) as file:
            for first in range(0, self.rows, step):
                yield self._rows(file.fileno(), first, min(step, self.rows - first))

    def read(self) -> Array:
        """Read the whole tensor as float32, in its own shape. For vectors and small matrices."""
        return np.concatenate(list(self.blocks())).reshape(self.shape)

    def _rows(self, fd: int, first: int, count: int) -> Array:
        row = self.cols * ITEM_BYTES[self.dtype]
        raw = os.pread(fd, count * row, self.offset + first * row)
        if len(raw) != count * row:
            raise CheckpointError(f"{self.path}: ends inside tensor {self.name}; download the file again")
        values = _to_float32(raw, self.dtype).reshape(count, self.cols)
        peak = float(np.abs(values).max(initial=0.0))
        if not peak < IMPLAUSIBLE:  # false for NaN too
            kind = "NaN or infinity" if not math.isfinite(peak) else f"a value of {peak:.3g}"
            raise CheckpointError(
                f"{self.path}: tensor {self.name} holds {kind}; the file is damaged, download it again"
            )
        return values


def to_float16(block: Array, name: str) -> NDArray[np.float16]:
    """Convert to 16 bits; a value that would become infinite is refused. Raises CheckpointError."""
    peak = float(np.abs(block).max(initial=0.0))
    if peak > HALF_MAX:
        raise CheckpointError(f"tensor {name} holds {peak:.6g}, over float16's {HALF_MAX:.0f}; use w8a8 and Q8_0")
    return block.astype(np.float16)


def _to_float32(raw: bytes, dtype: str) -> Array:
    if dtype == "BF16":  # bfloat16 is the upper half of a float32
        return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype="<f4" if dtype == "F32" else "<f2").astype(np.float32)


class Checkpoint:
    """A checkpoint directory: its spec and its tensors by Hugging Face name. Holds no open file."""

    def __init__(self, directory: Path, spec: ModelSpec, tensors: Mapping[str, Tensor]) -> None:
        self.directory = directory
        self.spec = spec
        self.tensors = tensors

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read config and headers and hold every expected tensor against its shape. Raises CheckpointError."""
        if not os.path.isdir(directory):  # Path.is_dir raises for a name that is too long
            raise CheckpointError(f"{directory}: no such directory; give a Hugging Face checkpoint directory")
        spec = read_spec(directory)
        tensors: dict[str, Tensor] = {}
        try:
            for path in _files(directory):
                tensors.update(read_tensors(path))
        except OSError as error:
            raise CheckpointError(f"{error.filename or directory}: cannot be read: {error.strerror}") from error
        _check_shapes(directory, spec, tensors)
        return cls(directory, spec, tensors)

    @property
    def tokenizer(self) -> Path | None:
        """The SentencePiece model, if the checkpoint has one."""
        path = self.directory / "tokenizer.model"
        return path if path.is_file() else None

    def fingerprint(self) -> str:
        """Return a text that changes when any file that an export depends on does (names, sizes, times: not
        contents)."""
        paths = {t.path for t in self.tensors.values()} | set(self.directory.glob("*.json"))
        paths |= {self.tokenizer} if self.tokenizer else set()
        facts = [(p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in sorted(paths)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        single = directory / "model.safetensors"
        if not single.exists():
            raise CheckpointError(f"{directory}: no model.safetensors and no model.safetensors.index.json")
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index}: not a safetensors index: {error!r}") from error
    if any(Path(str(name)).name != name for name in names):
        raise CheckpointError(f"{index}: a shard's name leaves the directory")
    missing = [name for name in names if not os.path.isfile(directory / name)]
    if missing:
        raise CheckpointError(
            f"{directory}: {len(missing)} of {len(names)} shards missing (first: {missing[0]}); download the rest"
        )
    return [directory / name for name in names]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Locate the tensors of one safetensors file. Raises CheckpointError, and OSError from the file system."""
    _check_hub_digest(path)
    return _read_header(path)


def _read_header(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise CheckpointError(f"{path}: no safetensors header (truncated, or a Git LFS pointer?)")
        try:
            header = json.loads(file.read(length))
            items = {k: v for k, v in header.items() if k != "__metadata__"}
            found = {name: _tensor(path, name, fact, 8 + length, size) for name, fact in items.items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged safetensors header: {error!r}") from error
    _check_cover(path, found.values(), 8 + length, size)
    return found


def _check_cover(path: Path, tensors: Iterable[Tensor], start: int, size: int) -> None:
    """Check the format's own rule: tensors follow each other without a gap and fill the file."""
    at = start
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset != at:
            raise CheckpointError(
                f"{path}: damaged safetensors header: {tensor.name} is not where the one before ends"
            )
        at += math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
    if at != size:
        raise CheckpointError(f"{path}: {size - at} bytes after the last tensor; download the file again")


def _tensor(path: Path, name: str, fact: dict[str, Any], base: int, size: int) -> Tensor:
    dtype, shape = str(fact["dtype"]), tuple(int(n) for n in fact["shape"])
    begin, end = (int(n) for n in fact["data_offsets"])
    if dtype not in ITEM_BYTES:
        raise CheckpointError(f"{path}: tensor {name} is {dtype}; only F32, F16 and BF16 checkpoints can be exported")
    if begin < 0 or end - begin != math.prod(shape) * ITEM_BYTES[dtype] or not 1 <= len(shape) <= 2:
        raise CheckpointError(f"{path}: damaged safetensors header: tensor {name} does not fit its shape")
    if base + end > size:
        raise CheckpointError(
            f"{path}: truncated: tensor {name} ends at byte {base + end} of {size}; download the file again"
        )
    return Tensor(name, path, dtype, shape, base + begin)


def _check_hub_digest(path: Path) -> None:
    """Compare the file with its sha256, if `huggingface_hub` left it (the etag of an LFS file)."""
    note = path.parent / ".cache/huggingface/download" / f"{path.name}.metadata"
    if not note.is_file():
        return
    lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
    etag = lines[1].strip() if len(lines) > 1 else ""
    if len(etag) == 64 and sha256_of(path) != etag:
        raise CheckpointError(f"{path}: sha256 differs from the hub's; the file is damaged, download it again")


def expected_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """List Hugging Face names and shapes of every tensor of the model."""
    q, kv, h, f = (
        spec.shape.heads * spec.shape.head_dim,
        spec.shape.kv_heads * spec.shape.head_dim,
        spec.shape.hidden,
        spec.shape.ffn,
    )
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (q, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, q), "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h), "mlp.down_proj": (h, f),
        "input_layernorm": (h,), "post_attention_layernorm": (h,),
    }  # fmt: skip
    if spec.post_norms:
        layer |= {"pre_feedforward_layernorm": (h,), "post_feedforward_layernorm": (h,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (spec.shape.vocab, h),
        "model.norm.weight": (h,),
    }
    for i in range(spec.shape.layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def _check_shapes(directory: Path, spec: ModelSpec, tensors: Mapping[str, Tensor]) -> None:
    for name, shape in expected_shapes(spec).items():
        tensor = tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{directory}: tensor {name} is missing; is a shard's file incomplete?")
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.path}: tensor {name} has shape {list(tensor.shape)}, config.json wants {list(shape)}"
            )
