"""A GGUF file in 16 or 32 bits as a checkpoint: llama.cpp's names and keys turned back into transformers'."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rk_gemma.checkpoint.config import ModelSpec
from rk_gemma.checkpoint.ggufheader import read_gguf
from rk_gemma.checkpoint.names import EMBEDDING, HEAD, expected_shapes
from rk_gemma.checkpoint.reader import ITEM_BYTES, Tensor
from rk_gemma_runtime.errors import CheckpointError
from rk_gemma_runtime.memory.shape import FAMILIES, Shape, norms_of

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma.checkpoint.ggufheader import GgufHeader, GgufTensor
    from rk_gemma.checkpoint.reader import Array

TYPES = {0: "F32", 1: "F16", 30: "BF16"}
QUANTISED = {2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
             14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
             22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0"}  # fmt: skip
LAYER = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm"}  # fmt: skip
NORMS = {
    "gemma": {"ffn_norm": "post_attention_layernorm"},
    "gemma2": {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
               "post_ffw_norm": "post_feedforward_layernorm"},
}  # fmt: skip
LAYERS_OF_27B = 46  # for which llama.cpp takes another attention scale


@dataclass(frozen=True)
class NormTensor(Tensor):
    """A norm's weights as Gemma has them: llama.cpp stores one more."""

    @property
    def stored_plain(self) -> bool:
        """The file holds other numbers than are read."""
        return False

    def _rows(self, fd: int, first: int, count: int) -> Array:
        values = super()._rows(fd, first, count)
        values -= np.float32(1)
        return values


@dataclass(frozen=True)
class GgufModel:
    """What a file holds. `vocabulary` is a SentencePiece model, `jinja` its chat template; both may be empty."""

    spec: ModelSpec
    tensors: dict[str, Tensor]
    vocabulary: bytes
    jinja: str


def open_gguf(path: Path) -> GgufModel:
    """Read a file. Raises CheckpointError if it is quantised, another model, or damaged."""
    from rk_gemma.checkpoint.ggufvocabulary import vocabulary_of

    header = read_gguf(path)
    try:
        spec = _spec(path, header.keys)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its keys do not describe a Gemma: {error}") from error
    tensors = _tensors(path, header, spec)
    jinja = header.keys.get("tokenizer.chat_template", "")
    return GgufModel(spec, tensors, vocabulary_of(path, header.keys), jinja if isinstance(jinja, str) else "")


def _spec(path: Path, keys: dict[str, Any]) -> ModelSpec:
    family = keys.get("general.architecture")
    if family not in FAMILIES:
        raise CheckpointError(f"{path}: a GGUF of {family!r}, not of Gemma 1 or 2")
    own = {key.removeprefix(f"{family}."): value for key, value in keys.items()}
    heads, hidden, layers = (int(own[k]) for k in ("attention.head_count", "embedding_length", "block_count"))
    vocab = len(keys.get("tokenizer.ggml.tokens") or ()) or int(own["vocab_size"])
    shape = Shape(
        family, family, vocab, hidden, layers, heads, int(own.get("attention.head_count_kv", heads)),
        int(own.get("attention.key_length", hidden // heads)), int(own["feed_forward_length"]),
        int(own["context_length"]), norms_of(family),
    )  # fmt: skip
    second = family == "gemma2"
    scalar = hidden / heads if second and layers == LAYERS_OF_27B else shape.head_dim
    return ModelSpec(
        shape=shape, rms_eps=float(f"{own['attention.layer_norm_rms_epsilon']:.7g}"),
        rope_theta=float(own.get("rope.freq_base", 10000.0)), query_scalar=float(scalar),
        attn_softcap=_cap(own, "attn_logit_softcapping", 50.0) if second else 0.0,
        final_softcap=_cap(own, "final_logit_softcapping", 30.0) if second else 0.0,
        window=int(own.get("attention.sliding_window", 4096)) if second else 0,
        sliding=tuple(second and i % 2 == 0 for i in range(layers)),
        bos=int(keys.get("tokenizer.ggml.bos_token_id", 2)), eos=_ends(keys),
    )  # fmt: skip


def _cap(own: dict[str, Any], name: str, usual: float) -> float:
    """Return a cap; one that no logit reaches stands for none."""
    cap = float(own.get(name, usual))
    return cap if math.isfinite(cap) and cap < 1e5 else 0.0


def _ends(keys: dict[str, Any]) -> tuple[int, ...]:
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = [int(keys[f"tokenizer.ggml.{n}"]) for n in names if f"tokenizer.ggml.{n}" in keys]
    return tuple(dict.fromkeys(found)) or (1,)


def _tensors(path: Path, header: GgufHeader, spec: ModelSpec) -> dict[str, Tensor]:
    names = {EMBEDDING: "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for i in range(spec.shape.layers):
        pairs = {**LAYER, **NORMS[spec.shape.family]}
        names |= {f"model.layers.{i}.{theirs}.weight": f"blk.{i}.{own}.weight" for own, theirs in pairs.items()}
    shapes = expected_shapes(spec)
    if "output.weight" in header.tensors:
        names[HEAD], shapes[HEAD] = "output.weight", shapes[EMBEDDING]
    size = path.stat().st_size
    return {name: _tensor(path, header.tensors.get(own), own, shapes[name], size) for name, own in names.items()}


def _tensor(path: Path, found: GgufTensor | None, name: str, shape: tuple[int, ...], size: int) -> Tensor:
    if found is None:
        raise CheckpointError(f"{path}: tensor {name} is missing; is it a part of a split file?")
    if found.type not in TYPES:
        stored = QUANTISED.get(found.type, f"type {found.type}")
        raise CheckpointError(
            f"{path}: a quantised GGUF ({stored}), which is not a source for another format; export the F16 or BF16"
            " GGUF, or the unquantised checkpoint that it was made from"
        )
    if found.shape != shape:
        raise CheckpointError(f"{path}: tensor {name} has shape {list(found.shape)}, its keys want {list(shape)}")
    dtype = TYPES[found.type]
    if found.offset + math.prod(shape) * ITEM_BYTES[dtype] > size:
        raise CheckpointError(f"{path}: truncated inside tensor {name}; download it again")
    kind = NormTensor if len(shape) == 1 else Tensor
    return kind(name, path, dtype, shape, found.offset)
