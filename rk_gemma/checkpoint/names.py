"""Names of a model's tensors: those that transformers uses, and what wrappers put around them.

torch.compile, DDP, FSDP and PEFT each leave a word in the names of what is saved under them, and a model saved
without its head lacks `model.`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rk_gemma.checkpoint.config import ModelSpec
    from rk_gemma.checkpoint.header import Stored

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
# Wrappers may stand anywhere: a single layer can be compiled or sharded. None is the name of a part of Gemma.
WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
ANCHOR = "embed_tokens.weight"  # every Gemma has one, and nothing that is always there ends so
UNMERGED = re.compile(r"\.(base_layer|lora_\w+|original_module|modules_to_save|original0|original1)(\.|$)")


@dataclass(frozen=True)
class Named:
    """Tensors by transformers' names, and how the names were changed for that, in words (empty if they were not)."""

    tensors: Mapping[str, Stored]
    change: str


def canonical(place: Path, stored: Iterable[Stored]) -> Named:
    """Take what a wrapper added off the names. Raises CheckpointError if that leaves two tensors of one name.

    A name outside the prefix of the embedding is kept as it is.
    """
    bare = [(_unwrapped(tensor.name), tensor) for tensor in stored]
    prefix = _prefix(place, [name for name, _ in bare])
    found: dict[str, Stored] = {}
    for name, tensor in bare:
        own = _renamed(name, prefix)
        if own in found:
            raise CheckpointError(
                f"{place}: {found[own].name} and {tensor.name} are both {own}; keep the one that belongs to the model"
            )
        found[own] = tensor
    return Named(found, _change(found))


def unmerged(names: Iterable[str]) -> str:
    """Return the first name that only a model with an unmerged adapter has, or nothing."""
    return next((name for name in names if UNMERGED.search(name)), "")


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefix(place: Path, names: list[str]) -> str:
    """Find what stands before `embed_tokens.weight`."""
    found = sorted({name[: -len(ANCHOR)] for name in names if name == ANCHOR or name.endswith(f".{ANCHOR}")})
    if not found or "model." in found:
        return "model."
    if len(found) > 1:
        raise CheckpointError(
            f"{place}: {len(found)} models in one checkpoint ({', '.join(repr(p) for p in found[:3])});"
            " save the one to be exported alone"
        )
    return found[0]


def _renamed(name: str, prefix: str) -> str:
    """Give a name its place in transformers' model; the head stands beside `model.`, not inside."""
    outer = prefix.removesuffix("model.")
    if name in {f"{prefix}{HEAD}", f"{outer}{HEAD}"}:
        return HEAD
    return f"model.{name[len(prefix) :]}" if name.startswith(prefix) else name


def _change(found: Mapping[str, Stored]) -> str:
    """Say what the names of tensors have; the embedding's stands for all if it has something."""
    changed = [tensor.name for own, tensor in found.items() if tensor.name != own]
    if not changed:
        return ""
    given = next((name for name in changed if name.endswith(ANCHOR)), changed[0])
    if given == ANCHOR:
        return "lack 'model.', which is put before them"
    if not given.endswith(ANCHOR):
        inside = next((part for part in given.split(".") if part in WRAPPERS), "another prefix")
        return f"have {inside!r} inside, which is taken out"
    before = given.removesuffix(EMBEDDING) if given.endswith(EMBEDDING) else given.removesuffix(ANCHOR)
    return f"have the prefix {before!r}, which is taken off"


def expected_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """List Hugging Face names and shapes of every tensor of the model but the head."""
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
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (spec.shape.vocab, h), "model.norm.weight": (h,)}
    for i in range(spec.shape.layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes
