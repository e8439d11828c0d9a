"""Gemma 1, 1.1 and 2 by name (config.json of the public checkpoints)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.shape import FAMILIES, Shape, norms_of

if TYPE_CHECKING:
    from rk_gemma_runtime.bundle import Manifest

_GEMMA_1_2B = ("gemma", 256000, 2048, 18, 8, 1, 256, 16384, 8192, 2)
_GEMMA_1_7B = ("gemma", 256000, 3072, 28, 16, 16, 256, 24576, 8192, 2)
_TABLE = {
    "gemma-2b": _GEMMA_1_2B,
    "gemma-7b": _GEMMA_1_7B,
    "gemma-1.1-2b": _GEMMA_1_2B,
    "gemma-1.1-7b": _GEMMA_1_7B,
    "gemma-2-2b": ("gemma2", 256000, 2304, 26, 8, 4, 256, 9216, 8192, 4),
    "gemma-2-9b": ("gemma2", 256000, 3584, 42, 16, 8, 256, 14336, 8192, 4),
    "gemma-2-27b": ("gemma2", 256000, 4608, 46, 32, 16, 128, 36864, 8192, 4),
}
NAMES = tuple(_TABLE)
# Gemma 1 and 1.1 are of one size each: a table of sizes needs no row twice.
SIZES = ("gemma-2b", "gemma-7b", "gemma-2-2b", "gemma-2-9b", "gemma-2-27b")


def by_name(name: str) -> Shape | None:
    """Find a Gemma by name, however it is written (google/gemma-2-2b-it, gemma2-2b, Gemma 2 2B); None for any other
    model."""
    word = re.sub(r"[\s_]+", "-", name.strip().lower().rsplit("/", 1)[-1]).removesuffix("-it")
    word = re.sub(r"^gemma(\d)", r"gemma-\1", word)
    word = re.sub(r"^gemma-1-", "gemma-", word)
    if word not in _TABLE:
        return None
    family, vocab, hidden, layers, heads, kv_heads, head_dim, ffn, context, norms = _TABLE[word]
    return Shape(family, word, vocab, hidden, layers, heads, kv_heads, head_dim, ffn, context, norms)


def find_shape(name: str) -> Shape:
    """Find a Gemma as `by_name` does. Raises UsageError, which lists the names."""
    shape = by_name(name)
    if shape is None:
        raise UsageError(
            f"{name}: neither a model known by name, a bundle nor a config.json; known are {', '.join(NAMES)}"
        )
    return shape


def of_bundle(manifest: Manifest) -> Shape | None:
    """Find the shape of a bundle's model: as its manifest states it, else of the Gemma it names, else None."""
    model = manifest.model
    if model.family not in FAMILIES:
        return None
    if manifest.shape:
        name = model.source or f"{model.family} {model.size}"
        return Shape(
            model.family,
            name,
            manifest.vocab,
            context=manifest.context,
            norms=norms_of(model.family),
            **manifest.shape,
        )
    return by_name(f"{'gemma-2' if model.family == 'gemma2' else model.family}-{model.size}")
