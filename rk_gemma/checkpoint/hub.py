"""What huggingface_hub leaves with the files that it downloads: where they come from, and what they must hash to.

In its cache, models--OWNER--NAME/snapshots/COMMIT/ holds links into blobs/, and a blob is called as its hash: sha256
for a large file (Git LFS), git's own sha1 for a small one. Beside files in a directory of one's own it keeps notes.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from rk_gemma_runtime.bundle import sha256_of
from rk_gemma_runtime.errors import CheckpointError

SHA256, SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
REPOSITORY = re.compile("models--(.+)")
NOTES = ".cache/huggingface/download"


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from: its name on the hub (or its directory's) and the commit, empty if unknown."""

    source: str
    revision: str


def snapshot(directory: Path) -> Path:
    """Return the snapshot that `main` names, for the directory of a repository in the cache; others as they are.

    Raises CheckpointError for a repository of which no snapshot is there.
    """
    if not REPOSITORY.fullmatch(directory.name) or not (directory / "snapshots").is_dir():
        return directory
    reference = directory / "refs" / "main"
    commit = reference.read_text(encoding="utf-8", errors="replace").strip() if reference.is_file() else ""
    there = sorted(path.name for path in (directory / "snapshots").iterdir() if path.is_dir())
    if SHA1.fullmatch(commit) and commit in there:
        return directory / "snapshots" / commit
    if len(there) == 1:
        return directory / "snapshots" / there[0]
    advice = f"give one of {', '.join(there[:3])}" if there else "download it"
    raise CheckpointError(f"{directory / 'snapshots'}: the commit of refs/main is not here; {advice}")


def origin(directory: Path) -> Origin:
    """Find out where a checkpoint comes from."""
    place = Path(os.path.abspath(directory))  # not resolved: the cache may be reached through a link
    for path in (place, place.resolve()):
        name = REPOSITORY.fullmatch(path.parent.parent.name)
        if path.parent.name == "snapshots" and name:
            return Origin(name[1].replace("--", "/"), path.name)
    return Origin(place.resolve().name, next(iter(_note(directory / "config.json")), ""))


def check_digest(path: Path) -> None:
    """Hash a file if huggingface_hub says to what. Raises CheckpointError if it differs, OSError."""
    expected = _expected(path)
    if expected and _hash(path, expected) != expected:
        kind = "sha256" if len(expected) == 64 else "git hash"
        raise CheckpointError(f"{path}: {kind} differs from the hub's; the file is damaged, download it again")


def _expected(path: Path) -> str:
    """Return the hash that a link's blob is called as, or the sha256 in the note; nothing if neither is one.

    A note's git hash is no proof: small files in a directory of one's own are there to be edited.
    """
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs":
        return blob.name if SHA256.fullmatch(blob.name) or SHA1.fullmatch(blob.name) else ""
    etag = "".join(_note(path)[1:2])
    return etag if SHA256.fullmatch(etag) else ""


def _note(path: Path) -> list[str]:
    """Read commit, etag and time of a file's download."""
    note = path.parent / NOTES / f"{path.name}.metadata"
    lines = note.read_text(encoding="utf-8", errors="replace").splitlines() if note.is_file() else []
    return [line.strip() for line in lines]


def _hash(path: Path, expected: str) -> str:
    if SHA256.fullmatch(expected):
        return sha256_of(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
