"""A bundle from the hub, from files at hand and from the toolkit: what of each reaches the library's init."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from partkit import NAME, TOKENIZER, write_rkllm
from pullkit import pull, ready, see_only
from toolkitkit import checkpoint

from rk_gemma.pack.pack import pack
from rk_gemma.pack.wishes import Wishes
from rk_gemma_runtime import Assistant, Sampling
from rk_gemma_runtime.bundle import Bundle
from tests.recording.kit import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hubserver import HubServer

pytestmark = pytest.mark.board  # it needs what the simulator needs: a compiler
LAYOUT = "1.3.1"
IDS = (2, 5, 6)


@pytest.fixture
def made(
    request: pytest.FixtureRequest, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch,
    toolkit: Callable[..., str], main: Callable[..., Any],
) -> Bundle:  # fmt: skip
    """The bundle, made in the way that is asked for."""
    target = tmp_path / "b"
    if request.param == "pull":
        see_only(hub, tmp_path / "home", monkeypatch)
        hub.add(ready(tmp_path / "r"))
        return pull(target, wishes=Wishes(context=1024))
    if request.param == "pack":
        parts = [write_rkllm(tmp_path / f"{NAME}.rkllm"), write_rkllm(tmp_path / "pirate_lora.rkllm"), TOKENIZER]
        return pack(parts, target, Wishes(context=1024))
    words = ("--npu", "rkllm", "--toolkit", toolkit("1.3.1"), "--cpu", "none", "--npu-cores", 2)
    assert main("export", checkpoint(tmp_path / "m"), "-o", target, *words).code == 0
    return Bundle.open(target)


@pytest.mark.parametrize("made", ["pull", "pack", "export"], indirect=True)
def test_what_the_manifest_says_reaches_the_library(
    made: Bundle, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record"
    monkeypatch.setenv("RECORDING", str(record))
    monkeypatch.setenv("RECORDING_IDS", f"9 8 7 {made.manifest.eos[-1]} 6 5")
    library = build(tmp_path_factory.getbasetemp() / "recording", LAYOUT)
    adapter = {"adapter": made.manifest.adapters[0].name, "adapter_scale": 0.5} if made.manifest.adapters else {}
    with Assistant.open(
        made.directory, backend="npu", librkllmrt=str(library), sampling=Sampling(temperature=0.5, top_k=7), **adapter
    ) as gemma:
        for _ in gemma.generate(IDS, max_tokens=12):
            pass
        assert gemma.last is not None and (gemma.last.backend, list(gemma.last.ids)) == ("npu", [9, 8, 7])
    said = dict(line.partition(" ")[::2] for line in record.read_text().splitlines())
    assert said["init.model_path"] == str(made.npu_file)
    assert said["init.max_context_len"] == str(made.manifest.context)
    assert (said["init.top_k"], said["run.ids"]) == ("7", "2,5,6")
    if adapter:
        assert said["lora.path"] == str(made.path("pirate_lora.rkllm")) and said["lora.scale"] == "0.5"
    assert made.manifest.npu is not None and made.manifest.npu.toolkit == "1.3.1"
