"""`rk-gemma pull` against a server that speaks the hub's protocol, through the hub's own client."""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hubserver import HubServer, Repo
from partkit import NAME, TOKENIZER, write_gguf, write_rkllm
from rkllmkit import Rkllm

from rk_gemma_runtime.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CARD = b"---\nlicense: gemma\nbase_model: google/gemma-2-2b-it\n---\nCompatible with RKLLM version: 1.3.1\n"
READY = "someone/gemma-2-tiny-it-rk3588-1.3.1"
GGUF = "someone/gemma-2-tiny-it-GGUF"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub, and a client that knows no other."""
    from huggingface_hub import constants

    with HubServer() as server:
        home = tmp_path / "hf"
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", server.url, raising=False)
        yield server
