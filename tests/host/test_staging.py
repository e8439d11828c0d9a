"""The directory in which a bundle grows."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from rk_gemma.export.staging import NOTES, Staging, staging
from rk_gemma_runtime.bundle import FileFacts, Manifest, ModelFacts, read_manifest, sha256_of
from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANIFEST = Manifest(ModelFacts("gemma2", "tiny"), 8, 8, 2, (1,), "none")


def writes(text: str) -> Callable[[Path], None]:
    return lambda path: void(path.write_text(text))


def void(result: object) -> None:
    """A writer returns nothing."""


def interrupted(target: Path, key: str = "k") -> None:
    """One file finished, another begun."""
    with pytest.raises(KeyboardInterrupt), staging(target, key) as stage:
        assert stage.add("a", writes("aaa"))
        stage.add("b", begins)


def begins(path: Path) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_nothing_shows_before_commit(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staging(target, "k") as stage:
        stage.add("a", writes("aaa"))
        assert names(tmp_path) == [".out.partial"]
        assert stage.files == {"a": FileFacts(sha256_of(stage.directory / "a"), 3)}
        stage.commit(MANIFEST)
    assert names(tmp_path) == ["out"]
    assert names(target) == ["a", "bundle.yaml"]
    assert read_manifest(target) == MANIFEST


def test_interrupted_keeps_what_is_finished(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    assert names(tmp_path / ".out.partial") == ["a", NOTES]
    with staging(tmp_path / "out", "k") as stage:
        assert not stage.add("a", writes("other"))
        assert stage.add("b", writes("b"))
        stage.commit(MANIFEST)
    assert (tmp_path / "out" / "a").read_text() == "aaa"


def test_interrupted_before_anything_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging(tmp_path / "out", "k") as stage:
        stage.add("b", begins)
    assert not names(tmp_path)


@pytest.mark.parametrize("error", [ValueError("x"), OSError(28, "No space left on device")])
def test_failed_leaves_nothing(error: Exception, tmp_path: Path) -> None:
    with pytest.raises((ValueError, BundleError)), staging(tmp_path / "out", "k") as stage:
        stage.add("a", writes("aaa"))
        raise error
    assert not names(tmp_path)


def test_other_key_starts_anew(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with staging(tmp_path / "out", "other") as stage:
        assert not stage.files
        assert stage.add("a", writes("new"))


@pytest.mark.parametrize("damage", ["shorter", "gone", "notes are no JSON", "notes are a list", "notes lack facts"])
def test_remains_that_do_not_fit_are_removed(damage: str, tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    partial = tmp_path / ".out.partial"
    notes = {
        "notes are no JSON": "{",
        "notes are a list": "[]",
        "notes lack facts": '{"key": "k", "files": {"a": {}}}',
    }
    if damage in notes:
        (partial / NOTES).write_text(notes[damage])
    elif damage == "gone":
        (partial / "a").unlink()
    else:
        (partial / "a").write_text("aa")
    with staging(tmp_path / "out", "k") as stage:
        assert not stage.files
        assert stage.add("a", writes("aaa"))


def test_notes_cannot_reach_out(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("x")
    (tmp_path / ".out.partial").mkdir()
    facts = {"sha256": "0", "bytes": 1}
    (tmp_path / ".out.partial" / NOTES).write_text(json.dumps({"key": "k", "files": {"../victim": facts}}))
    with staging(tmp_path / "out", "k") as stage:
        assert not stage.files
    assert (tmp_path / "victim").read_text() == "x"


def test_a_folder_among_the_remains(tmp_path: Path) -> None:
    """Somebody's folder is no file of ours: refused in one line or removed, never another exception."""
    (tmp_path / ".out.partial" / "folder").mkdir(parents=True)
    try:
        with staging(tmp_path / "out", "k") as stage:
            assert not stage.files
    except BundleError as error:
        assert ".out.partial" in str(error)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_partial_that_is_not_ours(kind: str, tmp_path: Path) -> None:
    """A link would have an export empty the directory it leads to."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    partial = tmp_path / ".out.partial"
    if kind == "file":
        partial.touch()
    else:
        partial.symlink_to(victim)
    with pytest.raises(BundleError), staging(tmp_path / "out", "k"):
        pass
    assert names(victim) == ["kept"]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    with staging(tmp_path / "out", "k") as stage:
        stage.add("a", writes("aaa"))
        with pytest.raises(BundleError, match="another export"), staging(tmp_path / "out", "k"):
            pass
        assert names(stage.directory) == ["a", NOTES]


def test_target_that_appears_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="out: cannot be written"), staging(tmp_path / "out", "k") as stage:
        stage.add("a", writes("aaa"))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        stage.commit(MANIFEST)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["theirs"]


def test_interrupt_right_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle is there whole; the interrupt stays an interrupt."""
    rename = os.rename

    def and_then(source: Path, target: Path) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", and_then)
    with pytest.raises(KeyboardInterrupt), staging(tmp_path / "out", "k") as stage:
        stage.add("a", writes("aaa"))
        stage.commit(MANIFEST)
    assert read_manifest(tmp_path / "out") == MANIFEST


def test_interrupt_inside_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays behind serves the next try, or is gone; the bundle is whole then."""

    def stopped(manifest: Manifest) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), staging(tmp_path / "out", "k") as stage:
        stage.add("a", writes("aaa"))
        patch.setattr(Manifest, "dump", stopped)
        stage.commit(MANIFEST)
    assert not (tmp_path / "out").exists()
    with staging(tmp_path / "out", "k") as stage:
        stage.add("a", writes("aaa"))
        stage.commit(MANIFEST)
    assert names(tmp_path / "out") == ["a", "bundle.yaml"]


@pytest.mark.parametrize(
    ("finished", "said"),
    [
        ("a" * 120_000, "stopped; 0.1 MB are kept in {partial}; the same command goes on from there"),
        ("", "stopped; nothing could be kept yet"),
    ],
)
def test_what_is_said_of_an_interrupt(finished: str, said: str, tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt), staging(tmp_path / "out", "k", lines.append) as stage:
        assert not finished or stage.add("a", writes(finished))
        stage.add("b", begins)
    assert lines[-1] == said.format(partial=tmp_path / ".out.partial")
    assert (tmp_path / ".out.partial").exists() == ("{partial}" in said)


def test_a_second_interrupt_while_it_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(stage: Staging) -> None:
        raise KeyboardInterrupt

    lines: list[str] = []
    monkeypatch.setattr(Staging, "keep_finished", again)
    with pytest.raises(KeyboardInterrupt), staging(tmp_path / "out", "k", lines.append) as stage:
        stage.add("a", begins)
    assert (
        lines[-1]
        == f"stopped; what is written is in {tmp_path / '.out.partial'}; the same command goes on from there"
    )


def test_what_is_said_of_a_whole_bundle(tmp_path: Path) -> None:
    """An interrupt may come when all is done."""
    lines: list[str] = []
    with staging(tmp_path / "out", "k", lines.append) as stage:
        stage.commit(MANIFEST)
    assert lines[-1] == f"stopped; {tmp_path / 'out'} is whole"


def test_staging_says_what_it_did(tmp_path: Path) -> None:
    with staging(tmp_path / "out", "k") as stage:
        assert isinstance(stage, Staging)
        assert stage.add("a", writes("1"))
        assert not stage.add("a", writes("2"))


STRANGER = 54_321


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
@pytest.mark.parametrize("what", ["directory", "file", "link"])
def test_a_stranger_cannot_have_been_there_first(what: str, tmp_path: Path) -> None:
    stage = tmp_path / ".out.partial"
    stage.mkdir()
    planted = stage if what == "directory" else stage / "model.gguf"
    if what == "file":
        planted.write_bytes(b"x")
    if what == "link":
        planted.symlink_to("/etc/passwd")
    os.chown(planted, STRANGER, STRANGER, follow_symlinks=False)
    before = names(stage)
    with pytest.raises(BundleError, match="belongs to another user"), staging(tmp_path / "out", "k"):
        raise AssertionError("it began")
    assert names(stage) == before
    assert names(tmp_path) == [".out.partial"]


def test_a_directory_that_everybody_may_write_is_none_to_write_into(tmp_path: Path) -> None:
    stage = tmp_path / ".out.partial"
    stage.mkdir()
    stage.chmod(0o777)
    with pytest.raises(BundleError, match="everybody may write"), staging(tmp_path / "out", "k"):
        raise AssertionError("it began")
