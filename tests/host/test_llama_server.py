"""model.gguf in llama.cpp's own server: by its own template and vocabulary, the answers of `rk-gemma chat`."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import ROOT, write_safetensors
from llamatool import conversations
from tokenkit import added, pieces, put, tokenizer_json

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.checkpoint.chattemplate import OFFICIAL
from rk_gemma.export.pipeline import Options as Export
from rk_gemma.export.pipeline import export
from rk_gemma_runtime import Assistant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
DEMO = ROOT / "demo" / "checkpoint"
NEW = 32
FIRST = {"role": "user", "content": "What does errno 14 mean?"}
CHATS: list[list[dict[str, str]]] = [
    [FIRST],
    [FIRST, {"role": "assistant", "content": "Bad address."}, {"role": "user", "content": "And errno 12?"}],
    [{"role": "user", "content": " \n How many cores has the NPU of an RK3588?\n\n"}],
    [{"role": "user", "content": "two  blanks,\ttab, Größe, 日本語, \U0001f600"}],
    [{"role": "user", "content": "<b>html</b> </s> and <tool> here"}],
]


def as_it_is(at: Path) -> None:
    """The demo: tokenizer.model, and no template stated."""


def tokenizer_json_alone(at: Path) -> None:
    (at / "tokenizer.model").unlink()
    put(at / "tokenizer.json", tokenizer_json())


def with_template(at: Path) -> None:
    (at / "chat_template.jinja").write_text(OFFICIAL)


def added_tokens(at: Path) -> None:
    """Two more rows: one that text becomes, one that it never does."""
    _more_rows(at, 2)
    table = {
        str(2048 + i): {"content": c, "special": s} for i, (c, s) in enumerate((("<tool>", False), ("<end>", True)))
    }
    put(at / "tokenizer_config.json", {"added_tokens_decoder": table})


def added_in_tokenizer_json(at: Path) -> None:
    _more_rows(at, 2)
    tokenizer_json_alone(at)
    tree = tokenizer_json()
    tree["added_tokens"] += [added(2048, "<tool>", special=False), added(2049, "<end>")]
    put(at / "tokenizer.json", tree)


def padded(at: Path) -> None:
    _more_rows(at, 64)


def _more_rows(at: Path, count: int) -> None:
    weights = {name: tensor.read() for name, tensor in Checkpoint.open(at).tensors.items()}
    table = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = np.concatenate([table, table[5:6].repeat(count, 0) * np.float32(0.5)])
    write_safetensors(at / "model.safetensors", weights)
    config = json.loads((at / "config.json").read_text())
    put(at / "config.json", {**config, "vocab_size": config["vocab_size"] + count})


WAYS = [as_it_is, tokenizer_json_alone, with_template, added_tokens, added_in_tokenizer_json, padded]


@pytest.mark.parametrize("quant", ["Q8_0", "F16"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_answers(way: Callable[[Path], None], quant: str, tmp_path: Path) -> None:
    pieces()  # skips without the demo's tokenizer
    source = tmp_path / "src"
    shutil.copytree(DEMO, source)
    way(source)
    bundle = export(source, tmp_path / "out", Export("none", "w8a8", quant))
    theirs = conversations(bundle.path("model.gguf"), CHATS, NEW)
    with Assistant.open(tmp_path / "out", backend="cpu", threads=1) as gemma:
        for chat, (text, prompt_tokens, reason) in zip(CHATS, theirs, strict=True):
            ours = "".join(gemma.chat(chat, max_tokens=NEW, temperature=0))
            last: Any = gemma.last
            assert (ours, last.prompt_tokens, last.finish_reason) == (text, prompt_tokens, reason)
            assert ours
