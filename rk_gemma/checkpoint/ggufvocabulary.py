"""The SentencePiece model that a GGUF's vocabulary was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "tokenizer.ggml."
UNKNOWN, BYTE = 2, 6
# llama.cpp takes this spelling for an end id, so this project's own files break it.
MENDED = {"</s\u200b>": "</s>"}
IDS = {"bos": 2, "eos": 1, "unk": 3, "pad": 0}
TOKEN_IDS = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}


def vocabulary_of(path: Path, keys: dict[str, Any]) -> bytes:
    """Make the model; empty for a file without text. Raises CheckpointError for another kind of tokenizer."""
    pieces, scores, kinds = (keys.get(KEY + name) or [] for name in ("tokens", "scores", "token_type"))
    if keys.get(KEY + "model") != "llama" or not len(pieces) == len(scores) == len(kinds):
        raise CheckpointError(
            f"{path}: its tokenizer is {keys.get(KEY + 'model')!r}, not Gemma's; export the checkpoint that it was"
            " made from"
        )
    if UNKNOWN not in kinds or kinds.count(BYTE) < 256:
        return b""
    from sentencepiece import SentencePieceProcessor
    from sentencepiece import sentencepiece_model_pb2 as sp

    model = sp.ModelProto()
    try:
        for piece, score, kind in zip(pieces, scores, kinds, strict=True):
            model.pieces.add(piece=MENDED.get(piece, piece), score=float(score), type=int(kind))
        trainer, normal = model.trainer_spec, model.normalizer_spec
        trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(pieces), True
        for name, usual in IDS.items():
            number = int(keys.get(KEY + TOKEN_IDS[name], usual))
            setattr(trainer, f"{name}_id", number)
            setattr(trainer, f"{name}_piece", pieces[number])
        normal.name, normal.escape_whitespaces = "identity", True
        normal.add_dummy_prefix = normal.remove_extra_whitespaces = False
        data = bytes(model.SerializeToString())
        SentencePieceProcessor(model_proto=data)
    except (ValueError, TypeError, IndexError, RuntimeError, UnicodeError) as error:
        raise CheckpointError(f"{path}: its vocabulary is not a SentencePiece model: {error}") from error
    return data
