"""tokenizer.json as the SentencePiece model that it was made from, where that can be proven.

Both describe the same algorithm: characters are merged pair by pair, best pair first. SentencePiece ranks a pair by
the score of what it becomes; tokenizer.json lists the pairs. A list that no scores can express is refused, and so
is a vocabulary with a pair that SentencePiece would merge and the list lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.config import read_json
from rk_gemma.checkpoint.parity import check_parity
from rk_gemma.checkpoint.tokens import SPACE, TAB
from rk_gemma.checkpoint.values import cut, token_id
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece's numbers
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
BYTES = {f"<0x{value:02X}>" for value in range(256)}
REMEDY = "copy tokenizer.model of the base model (such as google/gemma-2-2b-it) into the directory"


def rebuilt(path: Path) -> bytes:
    """Make the SentencePiece model of a tokenizer.json. Raises CheckpointError, with the remedy, if it cannot be."""
    try:
        tree = read_json(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {REMEDY}") from error
    try:
        _check_kind(tree)
        vocab = _with_tab({piece: token_id(number) for piece, number in tree["model"]["vocab"].items()})
        merges = [_pair(merge) for merge in tree["model"]["merges"]]
        whole = {str(fact["content"]) for fact in tree["added_tokens"]}
        data = _model(vocab, _scores(vocab, merges, whole), whole)
        check_parity(data, vocab, merges, whole)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = _in_words(error)
        fault = f"{path}: not Gemma's tokenizer ({reason}), and no tokenizer.model"
        raise CheckpointError(f"{fault}; {REMEDY}") from error
    return data


def _in_words(error: Exception) -> str:
    if isinstance(error, (TypeError, AttributeError)):  # in Python's words
        return "a part of it is of another type"
    return cut(f"no {error}" if isinstance(error, KeyError) else error)


def _with_tab(vocab: dict[str, int]) -> dict[str, int]:
    """Give the byte of a tab its name back. A tab reads the same either way."""
    place = vocab.get("<0x08>", -2) + 1
    there = next((piece for piece, number in vocab.items() if number == place), None)
    if TAB in vocab or there not in (None, "\t"):
        return vocab
    return {**{piece: number for piece, number in vocab.items() if piece != there}, TAB: place}


def _check_kind(tree: Mapping[str, Any]) -> None:
    model = tree["model"]
    if not isinstance(model, dict):
        raise ValueError("it has no model")
    if model.get("type") != "BPE" or not model.get("byte_fallback") or model.get("ignore_merges"):
        raise ValueError(f"model {model.get('type')!r} is not BPE with byte_fallback")
    normal = tree.get("normalizer") or {}
    steps = normal.get("normalizers", [normal]) if normal.get("type") == "Sequence" else [normal]
    if steps != [SPACES]:
        raise ValueError("its normalizer does more than mark spaces")
    split = tree.get("pre_tokenizer")
    if split and (split.get("type"), split.get("pattern")) != ("Split", {"String": " "}):
        raise ValueError(f"pre_tokenizer {split.get('type')!r}")


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return str(left), str(right)


def _scores(vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], whole: set[str]) -> dict[str, float]:
    """Rank pieces by the place of their pairs in the list. Raises ValueError if scores cannot express the list."""
    ranks: dict[str, float] = {}
    known, last = set(merges), ""
    for left, right in merges:
        piece = left + right
        if piece not in vocab:
            raise ValueError(f"merge {piece!r} is not in the vocabulary")
        if piece != last and piece in ranks and piece not in whole:
            raise ValueError(f"merges of {piece!r} are apart")
        ranks.setdefault(piece, -float(len(ranks)))
        last = piece
    for piece in vocab.keys() - whole - BYTES:
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocab and right in vocab and (left, right) not in known and not {left, right} & whole:
                raise ValueError(f"no merge of {left!r} and {right!r}")
    return ranks


def _model(vocab: Mapping[str, int], scores: Mapping[str, float], whole: set[str]) -> bytes:
    from sentencepiece import sentencepiece_model_pb2 as sp

    if sorted(vocab.values()) != list(range(len(vocab))) or not vocab.keys() >= BYTES:
        raise ValueError("its ids have gaps, or it lacks pieces for bytes")
    model = sp.ModelProto()
    control = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>"}
    for piece in sorted(vocab, key=vocab.__getitem__):
        kind = BYTE if piece in BYTES else USER_DEFINED if piece in whole else NORMAL
        kind = CONTROL if piece in control.values() else UNKNOWN if piece == "<unk>" else kind
        score = scores.get(piece, -float(len(vocab))) if kind == NORMAL else 0.0
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer, normal = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(vocab), True
    for name, piece in {**control, "unk": "<unk>"}.items():
        setattr(trainer, f"{name}_id", vocab[piece])
        setattr(trainer, f"{name}_piece", piece)
    normal.name, normal.escape_whitespaces = "identity", True
    normal.add_dummy_prefix = normal.remove_extra_whitespaces = False
    return bytes(model.SerializeToString())
