"""Parts of a bundle for tests: `.rkllm` and GGUF files with the demo's vocabulary, and their tokenizer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from hosttools import ROOT
from rkllmkit import Rkllm, gemma_keys
from sentencepiece import SentencePieceProcessor

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"
NAME = "gemma-2-tiny-it-rk3588-w8a8-opt-1-hybrid-ratio-0.0"
SHAPE = {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 128}


@cache
def vocabulary(path: Path = TOKENIZER) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and kinds (SentencePiece's numbers) of a tokenizer."""
    sp = SentencePieceProcessor(model_file=str(path))
    size = range(sp.get_piece_size())
    kinds = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in size]
    return [sp.id_to_piece(i) for i in size], [sp.get_score(i) for i in size], kinds


def keys(path: Path = TOKENIZER, **changes: Any) -> dict[str, tuple[str, Any]]:
    """Keys of a tiny Gemma 2 with a vocabulary."""
    pieces, scores, kinds = vocabulary(path)
    words: dict[str, Any] = {
        "tokenizer.ggml.tokens": ("strings", pieces),
        "tokenizer.ggml.scores": ("f32s", scores),
        "tokenizer.ggml.token_type": ("i32s", kinds),
    }
    return gemma_keys(vocab=len(pieces), **{**words, **changes})


def write_rkllm(path: Path, trailer: str = "1.3.1", **changes: Any) -> Path:
    """A file that names its toolkit at the end; `changes` are keys."""
    end = f"rkllm-toolkit version: {trailer}".encode() if trailer else b""
    rows = len(vocabulary()[0])
    own = keys(**{"general.file_type": ("u32", 7), "rkllm.version": ("string", trailer or "1.3.1"), **changes})
    path.write_bytes(Rkllm(own, tensors=(("token_embd.weight", (64, rows)),), trailer=end).data())
    return path


def write_gguf(path: Path, quant: int = 2, **changes: Any) -> Path:
    """A GGUF: an `.rkllm` without a mask. Its tensors are as long as it says, and mean nothing."""
    rows = len(vocabulary()[0])
    own = {name: value for name, value in keys(**changes).items() if not name.startswith("rkllm.")}
    own["general.file_type"] = ("u32", quant)
    path.write_bytes(Rkllm(own, bytes(256), (("token_embd.weight", (64, rows)),), rows * 128, b"").data())
    return path
