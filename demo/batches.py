"""Conversations to padded batches of about equal cost."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.corpus import Corpus
    from demo.tokenizer import ChatTokenizer

Row = tuple[list[int], list[bool]]
POOL = 512
LONGEST = 960


@dataclass(frozen=True)
class Batch:
    """Ids padded on the right, and the weight of predicting each position from the ones before."""

    ids: Tensor
    weights: Tensor


def _rows(corpus: Corpus, tokenizer: ChatTokenizer, count: int) -> list[Row]:
    talks = (tokenizer.training_ids(talk) for talk in itertools.islice(corpus, count))
    return [(ids[:LONGEST], own[:LONGEST]) for ids, own in talks]


def _pad(rows: list[Row], user_weight: float) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for i, (row, own) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        weights[i, : len(row)] = torch.where(torch.tensor(own), 1.0, user_weight)
    weights[:, 0] = 0.0
    return Batch(ids, weights)


def _group(rows: list[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length, at most `tokens` padded positions a group (or a single row)."""
    group: list[Row] = []
    for row in sorted(rows, key=lambda r: (len(r[0]), r[0])):
        if group and (len(group) + 1) * len(row[0]) > tokens:
            yield group
            group = []
        group.append(row)
    yield group


def batches(corpus: Corpus, tokenizer: ChatTokenizer, tokens: int, user_weight: float, seed: int) -> Iterator[Batch]:
    """An endless stream of batches; the order within a pool is shuffled by the seed."""
    rng = random.Random(seed)
    while True:
        groups = list(_group(_rows(corpus, tokenizer, POOL), tokens))
        rng.shuffle(groups)
        for group in groups:
            yield _pad(group, user_weight)
