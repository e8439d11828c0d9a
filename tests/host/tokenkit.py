"""Checkpoints with a tokenizer: the demo's tokenizer.model, and tokenizer.json as transformers writes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import GEMMA2, ROOT, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEMO_TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"
CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pieces() -> list[tuple[str, float, int]]:
    """Piece, score and type of each id of the demo's tokenizer."""
    if not DEMO_TOKENIZER.exists():
        pytest.skip(f"no {DEMO_TOKENIZER}; run: python -m demo.tokenizer")
    from sentencepiece import sentencepiece_model_pb2 as sp

    model = sp.ModelProto()
    model.ParseFromString(DEMO_TOKENIZER.read_bytes())
    return [(piece.piece, piece.score, piece.type) for piece in model.pieces]


def checkpoint_with_tokenizer(directory: Path, extra_rows: int = 0, kind: str = "model", **config: Any) -> Path:
    """`kind`: tokenizer.model, or tokenizer.json alone."""
    table = pieces()
    write_checkpoint(directory, {**GEMMA2, "vocab_size": len(table) + extra_rows, **config})
    if kind == "model":
        (directory / "tokenizer.model").write_bytes(DEMO_TOKENIZER.read_bytes())
    else:
        put(directory / "tokenizer.json", tokenizer_json())
    return directory


def put(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def tokenizer_json() -> dict[str, Any]:
    """As the converter of transformers makes it: merges by the score of what they become, then by the ids."""
    table = pieces()
    vocab = {piece: number for number, (piece, _, _) in enumerate(table)}
    merges = []
    for piece, score, _ in table:
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        local = [(left, right) for left, right in cuts if left in vocab and right in vocab]
        merges += [(-score, left, right) for left, right in sorted(local, key=lambda c: (vocab[c[0]], vocab[c[1]]))]
    merges.sort(key=lambda merge: merge[0])
    whole = [(number, piece, kind) for number, (piece, _, kind) in enumerate(table) if kind in (2, 3, 4)]
    return {
        "version": "1.0",
        "added_tokens": [added(number, piece, special=kind != 4) for number, piece, kind in whole],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": [[left, right] for _, left, right in merges],
        },
    }  # fmt: skip


def added(number: int, content: str, special: bool = True) -> dict[str, Any]:
    return {"id": number, "content": content, "special": special, "normalized": False, "lstrip": False}


def state_added(directory: Path, where: str, tokens: Mapping[int, str], special: bool = True) -> None:
    """State added tokens in one of the three files that transformers has had for them."""
    if where == "added_tokens.json":
        put(directory / where, {content: number for number, content in tokens.items()})
    elif where == "tokenizer_config.json":
        table = {str(number): {"content": c, "special": special} for number, c in tokens.items()}
        put(directory / where, {"added_tokens_decoder": table})
    else:
        tree = tokenizer_json()
        tree["added_tokens"] += [added(number, content, special) for number, content in tokens.items()]
        put(directory / where, tree)
