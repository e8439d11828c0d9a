"""A repository as the hub lists it at one commit, or as huggingface_hub's cache has it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants

from rk_gemma.hub.faults import HubError, a_hubs_answer, hub_faults
from rk_gemma.hub.files import SHA1, SHA256, RemoteFile
from rk_gemma.hub.http import Patience, patiently
from rk_gemma_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Repository:
    """`gated` where contents need an accepted licence."""

    id: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    gated: bool = False

    def find(self, path: str) -> RemoteFile | None:
        """Find a file by its path, or by its name if that is in one folder only."""
        exact = [file for file in self.files if file.path == path]
        named = exact or [file for file in self.files if file.name == path]
        return named[0] if len(named) == 1 else None

    def ending(self, *endings: str) -> list[RemoteFile]:
        """Files whose name ends so, whatever the case."""
        return [file for file in self.files if file.path.lower().endswith(endings)]


def parse_repository(text: str) -> tuple[str, str]:
    """Split OWNER/NAME[@REVISION]; a link to the page of a repository is taken too."""
    for start in (f"{constants.ENDPOINT}/", "https://huggingface.co/", "https://hf.co/", "hf://"):
        text = text.removeprefix(start)
    name, _, revision = text.rstrip("/").partition("@")
    parts = name.split("/")
    if len(parts) > 3 and parts[2] in {"tree", "blob", "resolve"}:
        name, revision = "/".join(parts[:2]), revision or parts[3]
    return name, revision


def open_repository(name: str, revision: str = "", patience: Patience | None = None) -> Repository:
    """List a repository. Raises InputError, UsageError or HubError."""
    if constants.HF_HUB_OFFLINE:
        return _cached(name, revision)
    api = HfApi(constants.ENDPOINT)
    with hub_faults(name, revision), a_hubs_answer(name):
        info = patiently(
            lambda: api.model_info(name, revision=revision or None, files_metadata=True), patience or Patience(), name
        )
    files = []
    for sibling in info.siblings or ():
        size = sibling.lfs.size if sibling.lfs else sibling.size
        digest = sibling.lfs.sha256 if sibling.lfs else ""
        if size is None:
            raise HubError(f"{name}: the hub does not tell how long {sibling.rfilename} is; try again later")
        files.append(RemoteFile(name, info.sha or "", sibling.rfilename, size, digest, sibling.blob_id or ""))
    if not info.sha:
        raise HubError(f"{name}: the hub does not tell the commit of {revision or 'main'}; try again later")
    return Repository(name, revision, info.sha, tuple(files), bool(info.gated))


def branches(name: str) -> list[str]:
    """Name the branches other than main; none if the hub does not tell."""
    try:
        with hub_faults(name), a_hubs_answer(name):
            refs = HfApi(constants.ENDPOINT).list_repo_refs(name)
    except (InputError, HubError):
        return []
    return [branch.name for branch in refs.branches if branch.name != "main"]


def _cached(name: str, revision: str) -> Repository:
    home = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    commit = _cached_commit(home, revision or "main")
    folder = home / "snapshots" / commit
    if not commit or not folder.is_dir():
        raise HubError(f"{name}: revision {revision or 'main'} is not in the cache, and HF_HUB_OFFLINE is set")
    return Repository(name, revision, commit, tuple(sorted(_walk(name, commit, folder), key=lambda file: file.path)))


def _cached_commit(home: Path, revision: str) -> str:
    if SHA1.fullmatch(revision):
        return revision
    try:
        return (home / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _walk(name: str, commit: str, folder: Path) -> Iterator[RemoteFile]:
    for root, _, names in os.walk(folder):
        for entry in names:
            path = Path(root) / entry
            blob = path.resolve()
            if blob.is_file():
                digest = blob.name if SHA256.fullmatch(blob.name) else ""
                own = path.relative_to(folder).as_posix()
                git = blob.name if SHA1.fullmatch(blob.name) else ""
                yield RemoteFile(name, commit, own, blob.stat().st_size, digest, git, blob)
