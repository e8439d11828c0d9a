"""w8a8 in floating point: what int8 weights and activations do to a model, with gradients.

Weights get one scale per output channel, activations one per token, both by their largest magnitude.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = 127


def fake_quantise(x: Tensor) -> Tensor:
    """`x` rounded to int8 steps along its last axis; gradients pass as if nothing had happened."""
    scale = x.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1e-8) / LEVELS
    return x + (torch.round(x / scale) * scale - x).detach()


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return nn.functional.linear(fake_quantise(x.float()), fake_quantise(layer.weight.float()), layer.bias)


@contextmanager
def fake_w8a8(model: nn.Module) -> Iterator[None]:
    """Inside the block every linear layer, the tied head included, computes as w8a8 would."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        layer.__dict__["forward"] = functools.partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]
