"""model.gguf: CPU weights for llama.cpp, through the gguf package, in blocks of rows.

llama.cpp's Gemma 2 takes the attention scale from head_dim, except for its 27B type (46 layers), where it takes
hidden/heads; a checkpoint with another query_pre_attn_scalar gets the difference folded into q_proj.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

from rk_gemma.checkpoint import to_float16
from rk_gemma.export.ggufwords import add_vocabulary
from rk_gemma.export.growing import growing
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from rk_gemma.checkpoint import Checkpoint, ModelSpec, Tensor
    from rk_gemma.export.model import Model

TYPES = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "F16": gguf.GGMLQuantizationType.F16}
FILE_TYPES = {"Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "F16": gguf.LlamaFileType.MOSTLY_F16}
ARCH = {"gemma": gguf.MODEL_ARCH.GEMMA, "gemma2": gguf.MODEL_ARCH.GEMMA2}
LAYERS_OF_27B = 46
NO_CAP = 1e5  # llama.cpp divides by the cap; logits never come near this one
T = gguf.MODEL_TENSOR
LAYER_NAMES = {
    "self_attn.q_proj": T.ATTN_Q, "self_attn.k_proj": T.ATTN_K, "self_attn.v_proj": T.ATTN_V,
    "self_attn.o_proj": T.ATTN_OUT, "mlp.gate_proj": T.FFN_GATE, "mlp.up_proj": T.FFN_UP,
    "mlp.down_proj": T.FFN_DOWN, "input_layernorm": T.ATTN_NORM,
}  # fmt: skip
NORMS = {
    "gemma": {"post_attention_layernorm": T.FFN_NORM},
    "gemma2": {
        "post_attention_layernorm": T.ATTN_POST_NORM,
        "pre_feedforward_layernorm": T.FFN_PRE_NORM,
        "post_feedforward_layernorm": T.FFN_POST_NORM,
    },
}


def write_gguf(
    path: Path,
    model: Model,
    quant: str,
    name: str,
    on_bytes: Callable[[int], None],
) -> None:
    """Write the file; memory stays at one block of rows plus the vocabulary. Raises CheckpointError."""
    checkpoint, spec = model.checkpoint, model.spec
    check_gguf(checkpoint)
    tensors = list(_tensors(checkpoint))
    head, sizes = _head(path, model, quant, name, tensors)
    with growing(path, head) as file:
        at = len(head)
        for (target, tensor), size in zip(tensors, sizes, strict=True):
            factor = q_factor(spec) if target.endswith("attn_q.weight") else 1.0
            for row, block in file.rest(tensor, on_bytes):
                file.put(at + row * (size // tensor.rows), _encoded(block, tensor, factor, quant).tobytes())
            at = _aligned(at + size)
        file.finish(at)


def _head(
    path: Path, model: Model, quant: str, name: str, tensors: list[tuple[str, Tensor]]
) -> tuple[bytes, list[int]]:
    """Have the gguf package write all but the data, into a file that does not stay; return it, and each tensor's
    size."""
    aside = path.with_name(f"{path.name}.head")
    writer = gguf.GGUFWriter(aside, gguf.MODEL_ARCH_NAMES[ARCH[model.spec.shape.family]])
    try:
        _add_facts(writer, model.spec, name, quant)
        add_vocabulary(writer, model)
        sizes = [_declare(writer, target, tensor, quant) for target, tensor in tensors]
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    head = aside.read_bytes()
    aside.unlink()
    return head.ljust(_aligned(len(head)), b"\0"), sizes


def _aligned(size: int) -> int:
    alignment = int(gguf.GGUF_DEFAULT_ALIGNMENT)
    return -(-size // alignment) * alignment


def check_gguf(checkpoint: Checkpoint) -> None:
    """Refuse a model that llama.cpp's architectures cannot express. Raises CheckpointError."""
    if checkpoint.untied:
        raise CheckpointError(
            f"{checkpoint.directory}: lm_head.weight differs from the embedding, and llama.cpp's Gemma has no"
            " output layer of its own; export with --cpu none"
        )
    spec = checkpoint.spec
    alternating = tuple(i % 2 == 0 for i in range(spec.shape.layers))
    if _window(spec) and spec.sliding != alternating:
        raise CheckpointError(
            f"{checkpoint.directory}: llama.cpp's Gemma 2 slides on even layers only and this model does not;"
            " export with --cpu none"
        )


def _window(spec: ModelSpec) -> int:
    """Return the window, or 0 if no layer of this context ever meets its end."""
    return spec.window if any(spec.sliding) and spec.window < spec.shape.context else 0


def _add_facts(writer: gguf.GGUFWriter, spec: ModelSpec, name: str, quant: str) -> None:
    shape = spec.shape
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(spec.rms_eps)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_file_type(FILE_TYPES[quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if shape.family == "gemma2":
        writer.add_attn_logit_softcapping(spec.attn_softcap or NO_CAP)
        writer.add_final_logit_softcapping(spec.final_softcap or NO_CAP)
        writer.add_sliding_window(_window(spec) or shape.context)


def _tensors(checkpoint: Checkpoint) -> list[tuple[str, Tensor]]:
    spec, given = checkpoint.spec, checkpoint.tensors
    names = gguf.TENSOR_NAMES
    found = [(f"{names[T.TOKEN_EMBD]}.weight", given["model.embed_tokens.weight"])]
    for i in range(spec.shape.layers):
        for theirs, kind in {**LAYER_NAMES, **NORMS[spec.shape.family]}.items():
            found.append((f"{names[kind].format(bid=i)}.weight", given[f"model.layers.{i}.{theirs}.weight"]))
    return [*found, (f"{names[T.OUTPUT_NORM]}.weight", given["model.norm.weight"])]


def _declare(writer: gguf.GGUFWriter, target: str, tensor: Tensor, quant: str) -> int:
    """Announce a tensor; return its bytes."""
    if len(tensor.shape) == 1:
        writer.add_tensor_info(target, tensor.shape, np.dtype(np.float32), tensor.cols * 4)
        return tensor.cols * 4
    kind = TYPES[quant]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if tensor.cols % block:
        raise CheckpointError(f"{tensor.name}: rows of {tensor.cols} do not divide into {quant} blocks of {block}")
    row = tensor.cols // block * block_bytes
    if kind == gguf.GGMLQuantizationType.F16:
        writer.add_tensor_info(target, tensor.shape, np.dtype(np.float16), tensor.rows * row)
    else:  # for quantised data the package takes the shape in bytes
        writer.add_tensor_info(target, (tensor.rows, row), np.dtype(np.uint8), tensor.rows * row, raw_dtype=kind)
    return int(tensor.rows * row)


def _encoded(block: NDArray[np.float32], tensor: Tensor, factor: float, quant: str) -> NDArray[np.generic]:
    if len(tensor.shape) == 1:
        values: NDArray[np.generic] = block + np.float32(1)  # Gemma's norms multiply by 1 + w
    elif quant == "F16":
        values = to_float16(block * np.float32(factor), tensor.name)
    else:
        values = gguf.quantize(block * np.float32(factor), TYPES[quant])
    return values


def q_factor(spec: ModelSpec) -> float:
    """Return the factor for q_proj that makes llama.cpp's attention scale come out as the model's."""
    shape = spec.shape
    if shape.family != "gemma2":
        return 1.0
    theirs = shape.hidden / shape.heads if shape.layers == LAYERS_OF_27B else shape.head_dim
    return float((theirs / spec.query_scalar) ** 0.5)
