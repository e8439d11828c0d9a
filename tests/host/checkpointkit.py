"""Checkpoints that tools leave: quantised ones, and names that wrappers changed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from hosttools import GEMMA2, encoded, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hosttools import Arrays

    Raw = tuple[str, tuple[int, ...], bytes]

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "I32": 32,
        "U32": 32, "I64": 64, "BOOL": 8}  # fmt: skip


def raw(dtype: str, *shape: int) -> Raw:
    """A tensor of zeros."""
    return dtype, shape, bytes(math.prod(shape) * BITS[dtype] // 8)


def plain(weights: Arrays, dtype: str = "BF16") -> dict[str, Raw]:
    return {name: (dtype, values.shape, encoded(values, dtype)) for name, values in weights.items()}


def write_raw(path: Path, tensors: Mapping[str, Raw]) -> Path:
    """A safetensors file of any types."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(data for *_, data in tensors.values()))
    return path


def write_any(directory: Path, tensors: Mapping[str, Raw], **config: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**GEMMA2, **config}))
    write_raw(directory / "model.safetensors", tensors)
    return directory


def quantised(kind: str, weights: Arrays | None = None) -> dict[str, Raw]:
    """The checkpoint with its linear layers as `kind` has them, the added tensors before the weights."""
    found: dict[str, Raw] = {}
    for name, whole in sorted(plain(weights or random_weights(GEMMA2)).items()):
        base, (rows, cols) = name.removesuffix(".weight"), (*whole[1], 0)[:2]
        found |= LAYOUTS[kind](base, rows, cols) if "_proj" in name else {name: whole}
    return found


def _fp8(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.input_scale": raw("F32"), f"{base}.weight": raw("F8_E4M3", rows, cols),
            f"{base}.weight_scale": raw("F32")}  # fmt: skip


def _fp8_bare(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.weight": raw("F8_E5M2", rows, cols)}


def _fp8_blocks(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.weight": raw("F8_E4M3", rows, cols), f"{base}.weight_scale_inv": raw("F32", 1, 1)}


def _gptq(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.g_idx": raw("I32", cols), f"{base}.qweight": raw("I32", cols // 8, rows),
            f"{base}.qzeros": raw("I32", 1, rows // 8), f"{base}.scales": raw("F16", 1, rows)}  # fmt: skip


def _awq(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.qweight": raw("I32", cols, rows // 8), f"{base}.qzeros": raw("I32", 1, rows // 8),
            f"{base}.scales": raw("F16", 1, rows)}  # fmt: skip


def _mlx(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.biases": raw("BF16", rows, 1), f"{base}.scales": raw("BF16", rows, 1),
            f"{base}.weight": raw("U32", rows, cols // 8)}  # fmt: skip


def _nf4(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.weight": raw("U8", rows * cols // 2, 1), f"{base}.weight.absmax": raw("U8", rows * cols // 64),
            f"{base}.weight.quant_map": raw("F32", 16),
            f"{base}.weight.quant_state.bitsandbytes__nf4": raw("U8", 90)}  # fmt: skip


def _int8(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.SCB": raw("F32", rows), f"{base}.weight": raw("I8", rows, cols),
            f"{base}.weight_format": raw("U8")}  # fmt: skip


def _int8_tiled(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {**_int8(base, rows, cols), f"{base}.weight_format": ("U8", (), b"\2")}


def _int8_alone(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.SCB": raw("F32", rows), f"{base}.weight": raw("F16", rows, cols)}


def _packed(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.weight_packed": raw("I32", rows, cols // 8), f"{base}.weight_scale": raw("BF16", rows, 1),
            f"{base}.weight_shape": raw("I64", 2)}  # fmt: skip


def _int8_scales(base: str, rows: int, cols: int) -> dict[str, Raw]:
    return {f"{base}.weight": raw("I8", rows, cols), f"{base}.weight_scale": raw("F32", rows, 1)}


def _added(*ends: str, weight: str = "") -> Callable[[str, int, int], dict[str, Raw]]:
    """Tensors of these endings, and the weight of a type or none."""

    def layout(base: str, rows: int, cols: int) -> dict[str, Raw]:
        found = {f"{base}{end}": raw("F32", rows) for end in ends}
        return {**found, f"{base}.weight": raw(weight, rows, cols)} if weight else found

    return layout


LAYOUTS = {
    "eetq": _added(".weight_scales", weight="I8"), "hqq": _added(".W_q", ".scale", ".zero"),
    "quanto": _added(".weight._data", ".weight._scale", ".input_scale"),
    "torchao": _added(".weight_qdata", ".weight_scale"), "torchao-colon": _added(".weight:qdata", ".weight:scale"),
    "vptq": _added(".centroids.weight", ".indices"), "spqr": _added(".dense_weights", ".row_offsets"),
    "higgs": _added(".tables", ".scales", weight="U8"), "squeezellm": _added(".lookup_table", ".qweight"),
    "aqlm": _added(".codebooks", ".codes"), "exl2": _added(".q_weight", ".q_scale"),
    "exl3": _added(".trellis", ".suh"),
    "marlin": _added(".B", ".s"), "scaled": _added(".weight_scale", weight="BF16"),

    "fp8": _fp8, "fp8-bare": _fp8_bare, "fp8-blocks": _fp8_blocks, "gptq": _gptq, "awq": _awq, "mlx": _mlx,
    "bnb-4bit": _nf4, "bnb-8bit": _int8,
    "bnb-8bit-tiled": _int8_tiled, "bnb-8bit-odd": _int8_alone,
    "compressed": _packed, "int8": _int8_scales,
}  # fmt: skip
