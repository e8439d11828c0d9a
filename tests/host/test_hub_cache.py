"""The cache of huggingface_hub: links to blobs that are called as their hashes."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import GEMMA2, errors_of, random_weights, write_checkpoint, write_shards

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.bundle import read_manifest
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMIT, OTHER = "c" * 40, "d" * 40


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def cached(cache: Path, repository: str = "models--google--gemma-2-2b-it", shards: int = 0) -> Path:
    """The snapshot directory of a repository in a cache."""
    plain = write_checkpoint(cache / "plain")
    (plain / "generation_config.json").write_text('{"eos_token_id": [1, 107]}')
    if shards:
        write_shards(plain, random_weights(GEMMA2), shards)
    home = cache / repository
    place = home / "snapshots" / COMMIT
    for folder in (place, home / "blobs", home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    for path in plain.iterdir():
        data = path.read_bytes()
        large = path.suffix == ".safetensors"
        blob = home / "blobs" / (hashlib.sha256(data).hexdigest() if large else git_sha1(data))
        blob.write_bytes(data)
        (place / path.name).symlink_to(f"../../blobs/{blob.name}")
    shutil.rmtree(plain)
    return place


@pytest.mark.parametrize(
    ("repository", "source", "variant"),
    [("models--google--gemma-2-2b-it", "google/gemma-2-2b-it", "it"), ("models--me--tuned--x", "me/tuned/x", ""),
     ("models--gpt2", "gpt2", "")],
)  # fmt: skip
@pytest.mark.parametrize("way", ["snapshot", "repository", "link", "relative"])
def test_source_and_revision(
    way: str, repository: str, source: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = cached(tmp_path, repository)
    given = place.parent.parent if way == "repository" else place
    if way == "link":
        given = tmp_path / "model"
        given.symlink_to(place)
    elif way == "relative":
        monkeypatch.chdir(place.parent)
        given = type(place)(COMMIT)
    export(given, tmp_path / "out", Options("none"))
    model = read_manifest(tmp_path / "out").model
    assert (model.source, model.revision, model.variant) == (source, COMMIT, variant)


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("position", ["first", "last"])
def test_every_blob_is_held_against_its_name(
    position: str, shards: int, tmp_path: Path, main: Callable[..., Any]
) -> None:
    place = cached(tmp_path, shards=shards)
    Checkpoint.open(place)
    for path in sorted(place.iterdir()):
        blob = path.resolve()
        data = blob.read_bytes()
        spoilt = data.replace(b"107", b"106") if path.name == "generation_config.json" else data
        if path.suffix == ".json" and spoilt == data:
            spoilt = data.replace(b", ", b" ,", 1) if position == "first" else data + b" "
        elif path.suffix == ".safetensors":
            spoilt = data[:-1] + bytes([data[-1] ^ 1])
        blob.write_bytes(spoilt)
        done = main("export", place, "-o", tmp_path / "b")
        assert done.code == 3, path.name
        assert f"{path.name}: " in errors_of(done.stderr)[0] and "differs from the hub's" in errors_of(done.stderr)[0]
        assert not (tmp_path / "b").exists()
        blob.write_bytes(data)


def test_a_blob_that_is_gone(tmp_path: Path) -> None:
    place = cached(tmp_path)
    (place / "model.safetensors").resolve().unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: a broken link; download it again"):
        Checkpoint.open(place)


def test_links_that_are_not_the_hubs_prove_nothing(tmp_path: Path) -> None:
    real = write_checkpoint(tmp_path / "real")
    (tmp_path / "src").mkdir()
    for path in real.iterdir():
        (tmp_path / "src" / path.name).symlink_to(path)
    origin = Checkpoint.open(tmp_path / "src").origin
    assert (origin.source, origin.revision) == ("src", "")


def test_a_blob_that_is_not_called_as_a_hash(tmp_path: Path) -> None:
    """Repositories outside the hub give other etags."""
    place = cached(tmp_path)
    link = place / "model.safetensors"
    blob = link.resolve()
    link.unlink()
    link.symlink_to(blob.rename(blob.with_name("etag-of-a-mirror")))
    assert Checkpoint.open(place).tensors


def test_a_repository_whose_main_is_elsewhere(tmp_path: Path) -> None:
    home = cached(tmp_path).parent.parent
    (home / "refs" / "main").write_text(OTHER)
    assert Checkpoint.open(home).origin.revision == COMMIT  # the only one there
    shutil.copytree(home / "snapshots" / COMMIT, home / "snapshots" / ("e" * 40), symlinks=True)
    with pytest.raises(CheckpointError, match="refs/main is not here; give one of"):
        Checkpoint.open(home)


def test_a_repository_without_snapshots(tmp_path: Path) -> None:
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="download it"):
        Checkpoint.open(tmp_path / "models--a--b")


@pytest.mark.parametrize("right", [True, False])
def test_a_config_in_a_directory_of_ones_own_may_be_edited(right: bool, tmp_path: Path) -> None:
    """`--local-dir` keeps commit and etag of each file: git's sha1 for a small one."""
    source = write_checkpoint(tmp_path / "src")
    notes = source / ".cache/huggingface/download"
    notes.mkdir(parents=True)
    etag = git_sha1((source / "config.json").read_bytes()) if right else "0" * 40
    (notes / "config.json.metadata").write_text(f"{COMMIT}\n{etag}\n1700000000.0\n")
    assert Checkpoint.open(source).origin.revision == COMMIT
