"""What is given to export in the place of a directory, and what is said of it: one line, exit 3, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import write_checkpoint

from rk_gemma.checkpoint.place import no_directory
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

HUB = {
    "google/gemma-2-2b-it": "google/gemma-2-2b-it",
    "https://huggingface.co/google/gemma-2-2b-it": "google/gemma-2-2b-it",
    "https://huggingface.co/google/gemma-2-2b-it/tree/main": "google/gemma-2-2b-it",
    "https://hf.co/me/gemma-2-9b-tuned": "me/gemma-2-9b-tuned",
    "hf://google/gemma-2b": "google/gemma-2b",
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "gemma-1.1-2b-it": "google/gemma-1.1-2b-it",
}


@pytest.mark.parametrize("given", HUB)
def test_a_name_of_the_hub(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = HUB[given]
    said = no_directory(Path(given))
    assert f"`hf download {name} --local-dir {name.split('/')[1]}`" in said


@pytest.mark.parametrize("given", ["models/mine", "/nowhere/at-all", "../up/there", "a/b/c", "mine", "~/mine"])
def test_a_path_that_leads_nowhere(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert no_directory(Path(given)) == (
        f"{Path(given)}: no such directory; give a Hugging Face checkpoint directory"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model", "x.safetensors.index.json"])
def test_a_file_of_a_checkpoint(name: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    folder = write_checkpoint(tmp_path / "src")
    (folder / name).touch()
    done = cli("export", folder / name, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"rk-gemma: error: {folder / name}: a file, not a checkpoint directory; give the directory that it lies in:"
        f" {folder}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize(
    ("name", "advice"), [("m.gguf", "export the unquantised"), ("m.zip", "config.json and"), ("m", "config.json and")]
)
def test_another_file(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert advice in no_directory(tmp_path / name)


def test_a_page_in_the_place_of_a_config(tmp_path: Path, cli: Callable[..., Any]) -> None:
    folder = write_checkpoint(tmp_path / "src")
    for text, reason in (("<!DOCTYPE html>", "not JSON (it begins with '<!DOCTYPE html>')"), ("", "empty")):
        (folder / "config.json").write_text(text)
        done = cli("export", folder, "-o", tmp_path / "out")
        assert done.returncode == 3
        assert done.stderr == f"rk-gemma: error: {folder}/config.json: {reason}; download it again\n"


def test_too_long_a_name_is_an_error_of_ours(tmp_path: Path) -> None:
    from rk_gemma.checkpoint import Checkpoint

    with pytest.raises(CheckpointError, match="no such directory"):
        Checkpoint.open(tmp_path / ("x" * 300))
