"""`rk-gemma export` and `rk-gemma inspect`: what is written and what is said."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hosttools import COMMAND, DATA, GEMMA2, ROOT, environment, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = DATA / "tiny-gemma2"
DEMO_TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_from_checkpoint_to_verified_bundle(tmp_path: Path, cli: Callable[..., Any]) -> None:
    bundle = tmp_path / "tiny"
    done = cli("export", TINY, "-o", bundle, "--licence", "MIT")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("rk-gemma: warning:")
    assert "token ids only" in lines[0]
    assert lines[1:3] == ["model.sim: writing", "model.gguf: writing"]
    assert lines[3].startswith(f"rk-gemma: {bundle}: model.gguf, model.sim (")
    assert len(lines) == 4
    assert sorted(p.name for p in bundle.iterdir()) == ["bundle.yaml", "model.gguf", "model.sim"]
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]

    shown = cli("inspect", bundle, "--verify", "--json")
    assert shown.returncode == 0
    tree = json.loads(shown.stdout)
    assert tree.pop("verified") is True
    assert tree == yaml.safe_load((bundle / "bundle.yaml").read_text())


def test_manifest(tmp_path: Path, main: Callable[..., Any]) -> None:
    assert main("export", TINY, "-o", tmp_path / "b", "--dtype", "fp16", "--cpu", "F16").code == 0
    tree = yaml.safe_load((tmp_path / "b" / "bundle.yaml").read_text())
    files = tree.pop("files")
    assert files == {
        name: {"sha256": sha256(tmp_path / "b" / name), "bytes": (tmp_path / "b" / name).stat().st_size}
        for name in ("model.gguf", "model.sim")
    }
    assert tree["schema"] == "rk-gemma-bundle/1"
    model = tree["model"]
    assert (model["family"], model["source"], model["revision"]) == ("gemma2", "tiny-gemma2", "")
    assert (tree["context"], tree["vocab"], tree["bos"], tree["eos"]) == (128, 512, 2, [1])
    assert tree["npu"] == {"file": "model.sim", "format": "sim", "dtype": "fp16", "platform": "RK3588",
                           "toolkit": "1.1.0", "max_context": 128, "npu_cores": 3, "options": ""}  # fmt: skip
    assert (tree["cpu"], tree["tokenizer"]) == ({"file": "model.gguf", "quant": "F16"}, None)
    assert (tree["chat"], tree["adapters"], tree["quality"]) == ({"template": "none"}, [], {})


@pytest.mark.parametrize(("option", "files"), [("--npu", ["model.gguf"]), ("--cpu", ["model.sim"])])
def test_one_side_only(option: str, files: list[str], tmp_path: Path, main: Callable[..., Any]) -> None:
    assert main("export", TINY, "-o", tmp_path / "b", option, "none").code == 0
    tree = yaml.safe_load((tmp_path / "b" / "bundle.yaml").read_text())
    assert list(tree["files"]) == files
    assert tree[option.strip("-")] is None


def test_notes_of_the_hub(tmp_path: Path, main: Callable[..., Any]) -> None:
    source = write_checkpoint(tmp_path / "gemma-2-2b-it")
    note = source / ".cache/huggingface/download/config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text("299a8560bedf22ed1c72a8a11e7dce4a7f9f51f8\netag\n1.0\n")
    assert main("export", source, "-o", tmp_path / "b", "--npu", "none").code == 0
    model = yaml.safe_load((tmp_path / "b" / "bundle.yaml").read_text())["model"]
    assert (model["variant"], model["revision"]) == ("it", "299a8560bedf22ed1c72a8a11e7dce4a7f9f51f8")


@pytest.mark.skipif(not DEMO_TOKENIZER.exists(), reason=f"no {DEMO_TOKENIZER}; run: python -m demo.tokenizer")
def test_tokenizer_goes_along(tmp_path: Path, main: Callable[..., Any]) -> None:
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, "vocab_size": 2048})
    (source / "tokenizer.model").write_bytes(DEMO_TOKENIZER.read_bytes())
    done = main("export", source, "-o", tmp_path / "b")
    assert done.code == 0
    assert "warning" not in done.stderr
    assert (tmp_path / "b" / "tokenizer.model").read_bytes() == DEMO_TOKENIZER.read_bytes()
    tree = yaml.safe_load((tmp_path / "b" / "bundle.yaml").read_text())
    assert (tree["tokenizer"], tree["chat"]) == ({"file": "tokenizer.model"}, {"template": "gemma"})
    assert tree["eos"] == [1, 107]


def test_bar_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal a bar is drawn; test_from_checkpoint_to_verified_bundle has the plain lines."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "export", str(TINY), "-o", str(tmp_path / "b")], stderr=theirs,
        env={**environment(), "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read_all(ours))
    assert process.wait(30) == 0
    assert "model.sim \u2501" in screen
    assert "model.gguf \u2501" in screen
    assert "writing" not in screen


def read_all(fd: int) -> str:
    parts = []
    try:
        while part := os.read(fd, 4096):
            parts.append(part)
    except OSError:  # Linux says EIO when the other side has closed
        pass
    finally:
        os.close(fd)
    return b"".join(parts).decode()


def test_the_context_is_bounded(tmp_path: Path) -> None:
    """A bundle is made for 4096 tokens unless more, or less, is asked for; never for more than the model has."""
    from rk_gemma.export.pipeline import Options, export
    from rk_gemma_runtime.errors import UsageError

    source = DATA / "tiny-gemma2"
    bundle = export(source, tmp_path / "short", Options(cpu="none", context=64))
    assert bundle.manifest.context == 64
    assert bundle.manifest.npu is not None and bundle.manifest.npu.max_context == 64
    assert export(source, tmp_path / "whole", Options(cpu="none")).manifest.context == 128
    with pytest.raises(UsageError, match="over the model's 128"):
        export(source, tmp_path / "long", Options(cpu="none", context=256))


def test_a_sim_file_is_nobody_elses(tmp_path: Path) -> None:
    """Its magic is neither GGUF's nor the one of Rockchip's inner block, so both refuse it at the first bytes."""
    from rk_gemma.export.pipeline import Options, export

    export(DATA / "tiny-gemma2", tmp_path / "b", Options(cpu="none"))
    magic = (tmp_path / "b" / "model.sim").read_bytes()[:8]
    assert magic == b"RKGSIM\r\n"
    assert magic[:4] not in {b"GGUF", b"RLLM", b"RKLL", b"RKRK"}
    assert not list((tmp_path / "b").glob("*.rkllm"))
