"""Repositories for tests of `rk-gemma pull`, and the verb in this process against the test hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubrepo import Repo
from huggingface_hub import constants
from partkit import TOKENIZER, write_gguf, write_rkllm

from rk_gemma.hub import pull as verb
from rk_gemma.hub.http import Patience
from rk_gemma.hub.order import Asked, make_order
from rk_gemma.pack.wishes import Wishes
from rk_gemma.parts.ggmltypes import QUANTS
from rk_gemma.parts.ggufnames import read_gguf_name
from rk_gemma.planning.sources import board_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from hubserver import HubServer

    from rk_gemma.hub.order import Order
    from rk_gemma_runtime.bundle import Bundle

READY = "someone/gemma-2-tiny-it-rk3588-1.3.1"
GGUF = "someone/gemma-2-tiny-it-GGUF"
MODEL = "gemma-2-tiny-it-rk3588-w8a8-opt-1-hybrid-ratio-{}.rkllm"
CARD = b"---\nlicense: gemma\nbase_model: google/gemma-2-2b-it\n---\nCompatible with RKLLM version: 1.3.1\n"


def see_only(hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch, offline: bool = False) -> None:
    """Have the client in this process ask this hub; it has read the environment when it was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 10)


def ready(folder: Path, ratios: tuple[str, ...] = ("0.0",), **changes: Any) -> Repo:
    """A repository with `.rkllm` files, a card and a tokenizer."""
    folder.mkdir(exist_ok=True)
    model = write_rkllm(folder / "x.rkllm").read_bytes()
    files = {MODEL.format(ratio): model for ratio in ratios}
    files |= {"README.md": CARD, ".gitattributes": b"*.rkllm filter=lfs\n", "tokenizer.model": TOKENIZER.read_bytes()}
    return Repo(**{"name": READY, "files": files, **changes})


def ggufs(folder: Path, *names: str, **changes: Any) -> Repo:
    """A repository with GGUF files; `changes` are keys of theirs."""
    folder.mkdir(exist_ok=True)
    files = {name: write_gguf(folder / "x.gguf", code_of(name), **changes).read_bytes() for name in names}
    return Repo(GGUF, {"README.md": b"hello\n", **files})


def code_of(name: str) -> int:
    """llama.cpp's number for the type that a file's name says; Q4_0's where it says none."""
    quant = read_gguf_name(name).quant
    return next((code for code, known in QUANTS.items() if known in {quant, f"{quant}_M"}), 2)


def order(source: str = READY, wishes: Wishes | None = None, **asked: str) -> Order:
    """Decide, without waits between tries."""
    place = board_of("", "", 16, "")
    return make_order(Asked(source, **asked), wishes or Wishes(), place, patience())


def patience() -> Patience:
    """Patience that does not wait."""
    return Patience(sleep=lambda seconds: None)


def pull(target: Path, source: str = READY, wishes: Wishes | None = None, **asked: str) -> Bundle:
    """Decide and download."""
    made = order(source, wishes, **asked)
    if made.missing:
        raise made.missing
    return verb.carry_out(made, target, patience())
