"""Why a tensor that the model needs is not among those of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.foreign import ORIGINAL
from rk_gemma.checkpoint.formats import method_of
from rk_gemma.checkpoint.names import HEAD

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Parts of names that only one program gives.
WRITERS = {
    "token_embd.": "llama.cpp", "embedder.": "gemma_pytorch", "tok_embeddings.": "Llama's own code",
    "decoder_block": "Keras Hub", "token_embedding": "Keras Hub", "word_embeddings": "Megatron",
    "embedding/input_embedding": "Flax", "gpt_neox.": "GPT-NeoX", "wte.": "GPT-2",
}  # fmt: skip
EMPTY = "the file holds no tensor; download it again"
RESAVE = "load it with transformers and save_pretrained it"


def why_missing(config: Mapping[str, Any], name: str, given: Collection[str], wanted: Collection[str]) -> str:
    """Say the likeliest reason, and what to do. `given` are the names that are there."""
    if name == HEAD:
        return "config.json says tie_word_embeddings false"
    method = method_of(config)
    if method:
        return f"config.json says {method}: {ORIGINAL}"
    others = [other for other in given if other not in wanted]
    writer = next((writer for part, writer in WRITERS.items() if any(part in other for other in others)), "")
    if writer:
        return f"names of tensors are those of {writer}; {RESAVE}"
    if len(others) == len(given):
        return f"none of the names is transformers' ({min(others)} ...); {RESAVE}" if others else EMPTY
    around = name.rsplit(".", 2)[0] + "."
    instead = next((other for other in others if other.startswith(around)), "")
    if instead:
        return f"{instead} is there instead, in which weights are joined or packed; {RESAVE}"
    layers = {_layer(other) for other in given} - {""}
    if _layer(name) and _layer(name) not in layers:
        return f"config.json says {len({_layer(w) for w in wanted} - {''})} layers, the weights have {len(layers)}"
    return "is a shard's file incomplete?"


def _layer(name: str) -> str:
    return name.split(".")[2] if name.startswith("model.layers.") else ""
