"""Holds a rebuilt SentencePiece model against the list of merges that it was rebuilt from, on sample texts."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from sentencepiece import SentencePieceProcessor

from rk_gemma.checkpoint.tokens import SPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TEXTS = (
    "The quick brown fox jumps over the lazy dog.", "  two  spaces\tand\n\n\nlines ",
    "x = [i**2 for i in range(10)]\r\n", "\U0001f600\U0001f468\u200d\U0001f469",
    "Größe, façade, naïve, Ærøskøbing", "日本語のテキスト", "العربية", "ελληνικά", "русский",
    "1234567890 3.14159", "aaaaaaaaaa bbbbbb abababab", "",
)  # fmt: skip
SAMPLES = 200


def check_parity(
    data: bytes, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], whole: Iterable[str]
) -> None:
    """Encode texts both ways. Raises ValueError for the first that differs."""
    processor = SentencePieceProcessor(model_proto=data)
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    ends = sorted((token for token in whole if token in vocab), key=len, reverse=True)
    control = {"<pad>", "<eos>", "<bos>", "<unk>"}  # SentencePiece takes these for text
    apart = re.compile(f"({'|'.join(re.escape(token) for token in ends if token not in control) or '(?!)'})")
    for text in (*TEXTS, *_samples(sorted(vocab))):
        marked = text.replace(" ", SPACE)
        ids = [i for part in apart.split(marked) if part for i in _merged(part, vocab, ranks, set(ends))]
        if processor.encode(text) != ids:
            raise ValueError(f"its merges and its scores read {text[:40]!r} differently")


def _samples(pieces: Sequence[str]) -> Iterable[str]:
    """Join pieces at random, the same ones each time."""
    pick = random.Random(0)
    words = [piece.replace(SPACE, " ") for piece in pieces if not piece.startswith("<")] or [""]
    return ("".join(pick.choices(words, k=6)) for _ in range(SAMPLES))


def _merged(text: str, vocab: Mapping[str, int], ranks: Mapping[tuple[str, str], int], whole: set[str]) -> list[int]:
    """Merge as tokenizer.json says: the pair that stands first in the list, leftmost first."""
    if text in whole:
        return [vocab[text]]
    parts = list(text)
    while True:
        found = [(ranks[pair], at) for at, pair in enumerate(zip(parts, parts[1:])) if pair in ranks]  # noqa: B905, RUF007
        if not found:
            break
        _, at = min(found)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [i for part in parts for i in _ids(part, vocab)]


def _ids(part: str, vocab: Mapping[str, int]) -> list[int]:
    return [vocab[part]] if part in vocab else [vocab[f"<0x{byte:02X}>"] for byte in part.encode()]
