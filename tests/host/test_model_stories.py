"""Every command of docs/models.md, in its order, against a hub that has repositories of these names."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import DATA, ROOT
from hubrepo import Repo
from partkit import TOKENIZER, keys, write_rkllm
from pullkit import code_of, see_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hubserver import HubServer

DOC = ROOT / "docs" / "models.md"
TYPES = (
    "IQ3_M", "IQ3_S", "IQ3_XS", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q4_0", "Q4_1",
    "Q4_K", "Q4_K_M", "Q4_K_S", "Q5_0", "Q5_1", "Q5_K", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0",
)  # fmt: skip
INT8 = DATA / "tiny-gemma1-bnb8"


def stories() -> dict[str, list[str]]:
    """The commands of each section."""
    found: dict[str, list[str]] = {}
    for section in DOC.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
        found[section.partition("\n")[0]] = [line for block in blocks for line in block.splitlines()]
    return found


def nine(folder: Path) -> Repo:
    """Three ready files and what else lies in that repository."""
    model = write_rkllm(folder / "nine", trailer="1.1.1", **{"rkllm.version": None}).read_bytes()
    names = [f"gemma-2-9b-it-rk3588-w8a8-opt-1-hybrid-ratio-{ratio}.rkllm" for ratio in ("0.0", "0.5", "1.0")]
    more = {"README.md": b"---\nlicense: gemma\n---\n", "tokenizer.model": TOKENIZER.read_bytes(),
            "model.safetensors.index.json": b"{}", "config.json": b"{}"}  # fmt: skip
    return Repo("c01zaut/gemma-2-9b-it-rk3588-1.1.1", {**dict.fromkeys(names, model), **more})


@pytest.fixture
def published(hub: HubServer, tmp_path: Path, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The repositories that the document names. The GGUF files are the demo's: they answer."""
    see_only(hub, tmp_path / "home", monkeypatch)
    monkeypatch.chdir(tmp_path)
    weights = (demo_bundle / "model.gguf").read_bytes()
    key = b"general.file_type" + (4).to_bytes(4, "little")
    stated = key + (7).to_bytes(4, "little")
    assert stated in weights
    files = {name: weights.replace(stated, key + code_of(name).to_bytes(4, "little"))
             for name in (f"gemma-1.1-7b-it-{quant}.gguf" for quant in TYPES)}  # fmt: skip
    hub.add(nine(tmp_path))
    hub.add(Repo("bartowski/gemma-1.1-7b-it-GGUF", {**files, "gemma-1.1-7b-it.imatrix": b"x", "README.md": b"hi"}))
    hub.add(Repo("google/gemma-2b-GGUF", {"gemma-2b.gguf": weights}))
    # The NPU's file of the same model: its shape is the demo's.
    shape = {"embedding_length": 256, "block_count": 4, "feed_forward_length": 768, "attention.head_count": 4,
             "attention.head_count_kv": 2, "attention.key_length": 64}  # fmt: skip
    own = {f"gemma2.{name}": ("u32", value) for name, value in shape.items()}
    name = "gemma-1.1-7b-it-rk3588-w8a8.rkllm"
    model = write_rkllm(tmp_path / name, trailer="1.2.3", **keys(**own, **{"general.file_type": ("u32", 7)}))
    hub.add(Repo("someone/gemma-1.1-7b-it-rk3588-1.2.3", {name: model.read_bytes()}))
    if INT8.is_dir():
        (tmp_path / "gemma-1.1-7b-it-int8").symlink_to(INT8)
    return hub


@pytest.mark.slow
@pytest.mark.parametrize("title", stories())
def test_a_story(title: str, published: HubServer, main: Callable[..., Any]) -> None:
    commands = stories()[title]
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "rk-gemma"
        done = main(*words[1:])
        assert done.code == 0, f"{command}: {done.stderr}"
        if words[1] == "run":
            assert done.stdout.strip()


def test_every_type_can_be_asked_for(published: HubServer) -> None:
    from pullkit import order

    for quant in TYPES:
        made = order("bartowski/gemma-1.1-7b-it-GGUF", quant=quant)
        assert [file.path for file, _ in made.items] == [f"gemma-1.1-7b-it-{quant}.gguf"]
        assert made.recipe is not None and made.recipe.manifest.cpu is not None
        assert made.recipe.manifest.cpu.quant == quant, quant
