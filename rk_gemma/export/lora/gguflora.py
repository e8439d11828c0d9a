"""NAME.lora.gguf: an adapter for llama.cpp, which multiplies B A by alpha / rank, the rank being each pair's own.

What model.gguf has folded into q_proj stands in B too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

from rk_gemma.export.gguffile import ARCH, LAYER_NAMES, q_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from rk_gemma.checkpoint import ModelSpec, Tensor
    from rk_gemma.export.lora.adapter import LoraAdapter, Pair


def write_lora_gguf(path: Path, adapter: LoraAdapter, spec: ModelSpec, on_bytes: Callable[[int], None]) -> None:
    """Write the file, one matrix in memory at a time. Raises CheckpointError for NaN or infinity."""
    alpha = float(np.float32(adapter.config.scaling * adapter.config.rank))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCH[spec.shape.family]])
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(adapter.source.name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for name, tensor in _plan(adapter):
            size = tensor.rows * tensor.cols * 4
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in _values(adapter, spec, alpha):
            _write(writer, values)
            on_bytes(values.nbytes)
    finally:
        writer.close()


def _plan(adapter: LoraAdapter) -> Iterator[tuple[str, Tensor]]:
    for pair in adapter.pairs:
        name = gguf.TENSOR_NAMES[LAYER_NAMES[pair.module]].format(bid=pair.layer)
        yield f"{name}.weight.lora_a", pair.a
        yield f"{name}.weight.lora_b", pair.b


def _values(adapter: LoraAdapter, spec: ModelSpec, alpha: float) -> Iterator[NDArray[np.float32]]:
    for pair in adapter.pairs:
        yield pair.a.read()
        yield pair.b_times(_factor(pair, spec, alpha))


def _factor(pair: Pair, spec: ModelSpec, alpha: float) -> float:
    folded = q_factor(spec) if pair.module == "self_attn.q_proj" else 1.0
    return folded * pair.scaling * pair.rank / alpha


def _write(writer: gguf.GGUFWriter, values: NDArray[np.float32]) -> None:
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    file.write(values.tobytes())
    writer.write_padding(file, file.tell())
