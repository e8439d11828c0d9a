"""How fast: a roofline over published figures (docs/memory.md has the fit and the outliers).

A decoded token reads every linear weight once: bytes over memory bandwidth, and some time per layer. A prompt token
computes with every block's weights: operations over the NPU's effective speed, and some time per layer; the head runs
once. Clocks pinned, short context; an untuned board reaches about half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.memory.dtypes import Dtype
    from rk_gemma_runtime.memory.shape import Shape


# One published figure: Gemma 3 1B in Q8_0 (1.06e9 bytes), llama.cpp on the four big cores, 19.5 tokens/s.
CPU_BYTES_PER_S = 19.5 * 1.06e9


@dataclass(frozen=True)
class Rates:
    """Of one generation of librkllmrt. In ms: per 1e9 weights read and per layer of a decoded token; per 1e9 weights
    and per layer of a prompt token; per 1e9 weights of the head, once a prompt."""

    decode: float
    decode_layer: float
    prompt: float
    prompt_layer: float
    head: float


# Least squares of relative errors over the w8a8 rows of that generation's published table.
RATES = {
    (1, 1): Rates(33.29, 0.346, 2.126, 0.0052, 79.6),
    (1, 2): Rates(33.91, 0.291, 1.719, 0.0118, 277.0),
    (1, 3): Rates(33.75, 0.293, 1.756, 0.0133, 173.6),
}
# Grouped over ungrouped: medians of the 1.1 tables, for prompts nearer to Gemma (2.3 to 3.5); 256 lies between.
DECODE_PENALTY = {0: 1.0, 128: 1.80, 256: 1.42, 512: 1.22}
PROMPT_PENALTY = {0: 1.0, 128: 2.90, 256: 1.80, 512: 1.29}


@dataclass(frozen=True)
class Speed:
    """Tokens per second of decoding and of reading a prompt; the time to the first token after `prompt` tokens."""

    decode: float
    prefill: float
    ttft_s: float
    prompt: int


def speed_of(shape: Shape, dtype: Dtype, prompt: int = 128, release: tuple[int, int] = (1, 3)) -> Speed:
    """Predict the speed for a prompt of that many tokens with librkllmrt `release`."""
    rates = RATES.get((release[0], release[1]), RATES[max(RATES)])
    wide = dtype.bytes
    token = rates.decode * shape.linear_weights / 1e9 * wide + rates.decode_layer * shape.layers
    row = rates.prompt * shape.layer_weights / 1e9 * wide + rates.prompt_layer * shape.layers
    first = (prompt * row + rates.head * shape.head.size / 1e9) * PROMPT_PENALTY[dtype.group]
    return Speed(1000 / (token * DECODE_PENALTY[dtype.group]), 1000 * prompt / first, first / 1000, prompt)
