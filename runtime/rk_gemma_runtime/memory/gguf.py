"""Sizes of GGUF files for llama.cpp, by type: which tensor gets which format, and the bytes of a format's block.

The mixes are llama.cpp's rules for a model without experts; they reproduce a public listing of 22 types of
gemma-1.1-7b-it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from rk_gemma_runtime.memory.shape import Shape

# (weights in a block, bytes of it)
BLOCKS = {
    "F16": (1, 2), "Q8_0": (32, 34), "Q6_K": (256, 210), "Q5_K": (256, 176), "Q5_1": (32, 24), "Q5_0": (32, 22),
    "Q4_K": (256, 144), "Q4_1": (32, 20), "Q4_0": (32, 18), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
    "Q3_K": (256, 110), "IQ3_S": (256, 110), "IQ3_XXS": (256, 98), "Q2_K": (256, 84),
}  # fmt: skip
TYPES = (
    "Q2_K", "IQ3_XS", "IQ3_S", "Q3_K_S", "IQ3_M", "Q3_K", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K_S",
    "Q4_K", "Q4_K_M", "Q4_1", "Q5_0", "Q5_K_S", "Q5_K", "Q5_K_M", "Q5_1", "Q6_K", "Q8_0", "F16",
)  # fmt: skip
_PLAIN = {"Q3_K_S": "Q3_K", "Q4_K_S": "Q4_K", "Q5_K_S": "Q5_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_M": "Q4_K",
          "Q5_K_M": "Q5_K", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S"}  # fmt: skip
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
HEADER_BYTES_PER_PIECE = 23.6  # names, scores and types of the vocabulary


def gguf_bytes(shape: Shape, quant: str) -> int:
    """Predict the length of the file. Raises UsageError for a type not in TYPES."""
    if quant not in TYPES:
        raise UsageError(f"unknown GGUF type {quant!r}; choose one of {', '.join(TYPES)}")
    quant = _ALIASES.get(quant, quant)
    table = quant if quant in {"Q8_0", "F16"} else "Q6_K"
    total = _bytes(shape.vocab * shape.hidden, table)
    for number in range(shape.layers):
        total += sum(_bytes(linear.size, _format(shape, quant, linear.name, number)) for linear in shape.layer())
    norms = shape.hidden * (shape.layers * shape.norms + 1)
    return total + norms * 4 + int(shape.vocab * HEADER_BYTES_PER_PIECE)


def _bytes(weights: int, kind: str) -> int:
    block, size = BLOCKS[kind]
    return -(-weights // block) * size


def _format(shape: Shape, quant: str, name: str, layer: int) -> str:
    plain, count = _PLAIN.get(quant, quant), shape.layers
    shared = shape.heads // shape.kv_heads >= 4  # few keys and values serve many heads: they get more bits
    if name == "v":
        return _values(quant, plain, layer, count, shared)
    if name == "o":
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(quant, plain)
    if name == "down":
        return _down(quant, plain, layer, count)
    if quant == "IQ3_XS" and (name in {"q", "k"} or count // 8 <= layer < 7 * count // 8):
        return "IQ3_XXS"
    return plain


def _values(quant: str, plain: str, layer: int, count: int, shared: bool) -> str:
    if quant in {"Q4_K_M", "Q5_K_M"}:
        return "Q6_K" if _more_bits(layer, count) else plain
    if quant == "Q3_K_M":
        return "Q5_K" if layer < 2 else "Q4_K"
    if quant == "Q4_K_S":
        return "Q5_K" if layer < 4 else plain
    if shared and quant in {"Q2_K", "IQ4_XS", "IQ4_NL"}:
        return "Q4_K" if quant == "Q2_K" else "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(quant, plain)


def _down(quant: str, plain: str, layer: int, count: int) -> str:
    if quant in {"Q4_K_M", "Q5_K_M"}:
        return "Q6_K" if _more_bits(layer, count) else plain
    if quant == "Q3_K_M":
        return "Q5_K" if layer < count // 16 else "Q4_K"
    if layer < count // 8 and quant in {"Q4_K_S", "IQ4_XS", "IQ4_NL", "IQ3_M"}:
        return "Q4_K" if quant == "IQ3_M" else "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(quant, plain)


def _more_bits(layer: int, count: int) -> bool:
    eighth = count // 8
    return layer < eighth or layer >= 7 * count // 8 or (layer - eighth) % 3 == 2
