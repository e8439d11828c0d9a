"""model.sim: the simulator's weights (format and names: docs/simulator.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rk_gemma.checkpoint import to_float16
from rk_gemma.export.growing import growing
from rk_gemma.export.quantise import quantise
from rk_gemma.export.simtext import TEXT_DTYPES, text_tensors
from rk_gemma_runtime.memory.dtypes import GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from rk_gemma.checkpoint import Checkpoint, ModelSpec, Tensor
    from rk_gemma.export.growing import Growing
    from rk_gemma.export.text import Text

MAGIC = b"RKGSIM\r\n"
VERSION = 1
ALIGN = 64
ITEM = {"f16": 2, "f32": 4, "i8": 1, "u8": 1}
# The toolkit whose files the oldest supported library still reads.
TOOLKIT = "1.1.0"
PLATFORM = "RK3588"
CORES = 3
LINEAR = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
NORMS_1 = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
NORMS_2 = {
    "attn_norm": "input_layernorm", "attn_post_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "ffn_post_norm": "post_feedforward_layernorm",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of the file and where its values come from."""

    name: str
    dtype: str
    rows: int
    cols: int
    source: Tensor | None
    offset: int = 0

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.rows * self.cols * ITEM[self.dtype]


def write_sim(
    path: Path,
    checkpoint: Checkpoint,
    text: Text,
    dtype: str,
    eos: tuple[int, ...],
    on_bytes: Callable[[int], None],
) -> None:
    """Write the file; memory stays at one block of rows. `on_bytes` is called with the checkpoint bytes consumed."""
    texts = text_tensors(text, checkpoint.spec)
    plan = _plan(checkpoint, dtype, texts)
    head = _header(checkpoint.spec, dtype, eos)
    header, placed = place(head, plan)
    with growing(path, MAGIC + struct.pack("<II", VERSION, len(header)) + header) as file:
        for entry in placed:
            if entry.name in texts:
                file.put(entry.offset, texts[entry.name])
            else:
                _write_entry(file, entry, placed, GROUPS.get(dtype, 0), on_bytes)


def _plan(checkpoint: Checkpoint, dtype: str, texts: Mapping[str, bytes]) -> list[Entry]:
    spec, tensors = checkpoint.spec, checkpoint.tensors
    table = tensors["model.embed_tokens.weight"]
    entries = [
        Entry("embed", _exact(table) if dtype == "fp16" else "f16", spec.shape.vocab, spec.shape.hidden, table)
    ]
    for i in range(spec.shape.layers):
        hub, own = f"model.layers.{i}.", f"blk.{i}."
        for name, theirs in (NORMS_2 if spec.post_norms else NORMS_1).items():
            entries.append(Entry(own + name, "f32", 1, spec.shape.hidden, tensors[f"{hub}{theirs}.weight"]))
        for name, theirs in LINEAR.items():
            entries += _linear(own + name, tensors[f"{hub}{theirs}.weight"], dtype)
    entries.append(Entry("output_norm", "f32", 1, spec.shape.hidden, tensors["model.norm.weight"]))
    entries += _linear("output", checkpoint.head, dtype)
    for name, data in texts.items():
        kind = TEXT_DTYPES[name]
        entries.append(Entry(name, kind, 1, len(data) // ITEM[kind], None))
    return entries


def _linear(name: str, tensor: Tensor, dtype: str) -> list[Entry]:
    if dtype == "fp16":
        return [Entry(name, _exact(tensor), tensor.rows, tensor.cols, tensor)]
    groups = tensor.cols // GROUPS[dtype] if GROUPS[dtype] else 1
    return [
        Entry(name, "i8", tensor.rows, tensor.cols, tensor),
        Entry(f"{name}.scale", "f32", tensor.rows, groups, None),
    ]


def _exact(tensor: Tensor) -> str:
    """bf16 and f16 checkpoints fit 16 bits; rounding a float32 one would cost a random model its digits."""
    return "f32" if tensor.dtype == "F32" else "f16"


def _header(spec: ModelSpec, dtype: str, eos: tuple[int, ...]) -> str:
    shape = spec.shape
    keys = {
        "family": shape.family, "vocab": shape.vocab, "hidden": shape.hidden, "layers": shape.layers,
        "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim, "ffn": shape.ffn,
        "context": shape.context, "rms_eps": spec.rms_eps, "rope_theta": spec.rope_theta,
        "attn_scale": repr(spec.query_scalar**-0.5), "embed_scale": repr(shape.hidden**0.5),
        "attn_softcap": spec.attn_softcap, "final_softcap": spec.final_softcap, "window": spec.window,
        "sliding": "".join("1" if s else "0" for s in spec.sliding), "dtype": dtype, "bos": spec.bos,
        "eos": ",".join(map(str, eos)), "platform": PLATFORM, "toolkit": TOOLKIT, "npu_cores": CORES,
    }  # fmt: skip
    return "".join(f"{k} {v}\n" for k, v in keys.items())


def place(head: str, plan: list[Entry]) -> tuple[bytes, list[Entry]]:
    """Fix the offsets. They stand in the header as fourteen digits, so its length is known before they are."""
    width = 14
    fixed = sum(len(f"tensor {e.name} {e.dtype} {e.rows} {e.cols}  {e.size}\n") + width for e in plan)
    offset = 16 + len(head.encode()) + fixed
    placed = []
    for e in plan:
        offset = -(-offset // ALIGN) * ALIGN
        placed.append(Entry(e.name, e.dtype, e.rows, e.cols, e.source, offset))
        offset += e.size
    lines = (f"tensor {e.name} {e.dtype} {e.rows} {e.cols} {e.offset:0{width}d} {e.size}\n" for e in placed)
    return (head + "".join(lines)).encode(), placed


def _write_entry(
    file: Growing,
    entry: Entry,
    placed: list[Entry],
    group: int,
    on_bytes: Callable[[int], None],
) -> None:
    if entry.source is None:  # scales, which go with their weights
        return
    scale = next((e for e in placed if e.name == f"{entry.name}.scale"), None)
    for row, block in file.rest(entry.source, on_bytes):
        if scale is None:
            file.put(entry.offset + row * entry.cols * ITEM[entry.dtype], _converted(entry, entry.source, block))
            continue
        values, scales = quantise(block, group)
        file.put(entry.offset + row * entry.cols * ITEM[entry.dtype], values.tobytes())
        file.put(scale.offset + row * scale.cols * ITEM[scale.dtype], scales.tobytes())


def _converted(entry: Entry, source: Tensor, block: NDArray[np.float32]) -> bytes:
    if entry.name.endswith("norm"):
        block = block + np.float32(1)  # Gemma's norms multiply by 1 + w
    return (to_float16(block, source.name) if entry.dtype == "f16" else block).tobytes()
