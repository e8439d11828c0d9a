"""The tokenizer's tensors of model.sim: what each id prints, and what text becomes ids (docs/simulator.md)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from sentencepiece import sentencepiece_model_pb2 as sp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.text import Text

TEXT_DTYPES = {"pieces": "u8", "vocab": "u8", "scores": "f32", "types": "u8"}
UNUSED = 5  # SentencePiece's number for a piece that no text becomes


def text_tensors(text: Text, spec: ModelSpec) -> dict[str, bytes]:
    """Make the tensors by name; none without a tokenizer. One of another kind than Gemma's gives `pieces` alone."""
    if text.tokenizer is None:
        return {}
    prints = _table(text.tokenizer.piece_bytes(i) for i in range(spec.shape.vocab))
    return {"pieces": prints, **_vocabulary(text.vocabulary, spec)}


def _vocabulary(data: bytes, spec: ModelSpec) -> dict[str, bytes]:
    model = sp.ModelProto()
    model.ParseFromString(data)
    if not _is_gemmas_kind(model):
        return {}
    rest = spec.shape.vocab - len(model.pieces)
    scores = np.array([p.score for p in model.pieces] + [0] * rest, "<f4")
    types = np.array([p.type for p in model.pieces] + [UNUSED] * rest, np.uint8)
    texts = [p.piece.encode() for p in model.pieces] + [b""] * rest
    return {"vocab": _table(texts), "scores": scores.tobytes(), "types": types.tobytes()}


def _is_gemmas_kind(model: sp.ModelProto) -> bool:
    """The simulator knows one algorithm: BPE over text that is taken as it is, with bytes for what has no piece."""
    normal, trainer = model.normalizer_spec, model.trainer_spec
    plain = normal.escape_whitespaces and not (normal.add_dummy_prefix or normal.remove_extra_whitespaces)
    return bool(
        trainer.model_type == trainer.BPE
        and trainer.byte_fallback
        and not trainer.treat_whitespace_as_suffix
        and plain
        and not normal.precompiled_charsmap
    )


def _table(texts: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack("<H", len(text)) + text for text in texts)
