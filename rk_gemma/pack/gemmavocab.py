"""Gemma's vocabulary (1, 1.1 and 2), known by the hash of its pieces, and its SentencePiece model made of them.

The pieces alone say everything: kinds go by id, and the score of the n-th normal piece is -n.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PIECES = 256_000
DIGEST = "fe3177a606cc77d0721c9d78586c51c3e3107f9d16c55998dbebff0f6374f5e1"  # of the pieces, joined by zero bytes
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece's numbers
CONTROLS, UNKNOWN_ID = range(3), 3
WHOLE = (range(4, 217), range(255968, 256000))
BYTES = range(217, 473)


def is_gemma(pieces: Sequence[bytes]) -> bool:
    """Whether these are Gemma's pieces, one for one."""
    return len(pieces) == PIECES and hashlib.sha256(b"\0".join(pieces)).hexdigest() == DIGEST


def gemma_model(pieces: Sequence[bytes]) -> bytes:
    """Make Gemma's SentencePiece model of its pieces."""
    kinds = [_kind(number) for number in range(len(pieces))]
    scores, rank = [], 0
    for kind in kinds:
        scores.append(-float(rank) if kind == NORMAL else 0.0)
        rank += kind == NORMAL
    return sentencepiece_model(pieces, scores, kinds)


def sentencepiece_model(pieces: Sequence[bytes], scores: Sequence[float], kinds: Sequence[int]) -> bytes:
    """Write a SentencePiece model of Gemma's kind: BPE with bytes, no prefix, no normalisation."""
    from sentencepiece import sentencepiece_model_pb2 as sp

    model = sp.ModelProto()
    for piece, score, kind in zip(pieces, scores, kinds, strict=True):
        model.pieces.add(piece=piece.decode("utf-8"), score=score, type=kind)
    trainer, normal = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(pieces), True
    trainer.split_digits = trainer.allow_whitespace_only_pieces = True
    for name, piece in {"pad": b"<pad>", "eos": b"<eos>", "bos": b"<bos>", "unk": b"<unk>"}.items():
        setattr(trainer, f"{name}_id", pieces.index(piece) if piece in pieces else -1)
        setattr(trainer, f"{name}_piece", piece.decode())
    normal.name, normal.escape_whitespaces = "identity", True
    normal.add_dummy_prefix = normal.remove_extra_whitespaces = False
    return bytes(model.SerializeToString())


def _kind(number: int) -> int:
    if number in CONTROLS:
        return CONTROL
    if number == UNKNOWN_ID:
        return UNKNOWN
    if number in BYTES:
        return BYTE
    return USER_DEFINED if any(number in run for run in WHOLE) else NORMAL
