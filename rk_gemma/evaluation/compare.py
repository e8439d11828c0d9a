"""Logits of the NPU against logits of transformers in float32, position by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Logits = Callable[[tuple[int, ...]], NDArray[np.float32]]


@dataclass(frozen=True)
class Quality:
    """Over `positions` next-token predictions: the share with the same most likely token, and the mean
    Kullback-Leibler divergence KL(reference || candidate) in nats."""

    positions: int
    top1: float
    mean_kl: float


def compare(prompts: Iterable[tuple[int, ...]], reference: Logits, candidate: Logits) -> Quality:
    """Compare two functions that map ids [T] to logits [T, vocab]."""
    positions, same, divergence = 0, 0, 0.0
    for ids in prompts:
        ours, theirs = candidate(ids), reference(ids)
        positions += len(ids)
        same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        divergence += float(_kl(_log_softmax(theirs), _log_softmax(ours)).sum())
    return Quality(positions, same / positions, divergence / positions)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    normal: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def _kl(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> NDArray[np.float64]:
    terms: NDArray[np.float64] = (np.exp(reference) * (reference - candidate)).sum(axis=1)
    return terms
