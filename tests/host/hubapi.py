"""JSON answers of the test hub: what a repository is, its tree in pages, paths, refs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from hubcontent import Content, Stored
from hubreply import Asked, Reply, refusal
from hubrepo import Commit, Repo, card, config, pointer

if TYPE_CHECKING:
    from collections.abc import Iterable

MADE = "2025-01-02T03:04:05.000Z"
Entry = dict[str, Any]


@dataclass(frozen=True)
class ApiAnswers:
    """Answers about one commit of a repository."""

    repo: Repo
    commit: Commit

    def info(self, asked: Asked) -> Reply:
        """Return what the repository is; sizes only where `blobs` is asked for."""
        front = card(self.commit.files) or {}
        blobs = _yes(asked.query.get("blobs"))
        answer = {
            "_id": hashlib.sha256(self.repo.name.encode()).hexdigest()[:24], "id": self.repo.name,
            "modelId": self.repo.name, "author": self.repo.name.rpartition("/")[0] or None, "sha": self.commit.sha,
            "private": self.repo.private, "gated": self.repo.gated, "disabled": self.repo.disabled,
            "lastModified": MADE, "createdAt": MADE, "downloads": 0, "likes": 0, "tags": _tags(front),
            "pipeline_tag": front.get("pipeline_tag"), "library_name": front.get("library_name"),
            "cardData": front or None, "config": config(self.commit.files), "spaces": [],
            "siblings": [self._sibling(path, blobs) for path in self.commit.files],
            "usedStorage": sum(content.size for content in self.commit.files.values()),
        }  # fmt: skip
        return _json({name: value for name, value in answer.items() if value is not None})

    def tree(self, asked: Asked, folder: str, page_size: int, base: str) -> Reply:
        """Return one page of a folder, with a Link to the next."""
        recursive, expand = (_yes(asked.query.get(name)) for name in ("recursive", "expand"))
        entries = [self._entry(path, expand) for path in self._listed(folder, recursive)]
        if not entries and folder:
            return refusal(404, "EntryNotFound", f"{folder} does not exist on {self.commit.sha}")
        at = int(asked.query.get("cursor", ["0"])[0])
        reply = _json(entries[at : at + page_size])
        if at + page_size < len(entries):
            kept = {name: values[0] for name, values in asked.query.items()}
            link = urlencode({**kept, "cursor": at + page_size})
            reply.headers["Link"] = f'<{base}{asked.path}?{link}>; rel="next"'
        return reply

    def paths_info(self, asked: Asked) -> Reply:
        """Return the entries of the paths in a form or JSON body; unknown paths are left out."""
        if "json" in asked.headers.get("content-type", ""):
            given = json.loads(asked.body)
            paths, expand = given["paths"], bool(given.get("expand"))
        else:
            form = parse_qs(asked.body.decode())
            paths, expand = form.get("paths", []), _yes(form.get("expand"))
        known = set(self._listed("", True))
        return _json([self._entry(path, expand) for path in paths if path in known])

    def refs(self) -> Reply:
        """Return branches and tags."""
        return _json({**self.repo.refs(), "converts": [], "pullRequests": []})

    def _listed(self, folder: str, recursive: bool) -> list[str]:
        """Return files and folders below a folder, in the hub's order."""
        prefix = f"{folder}/" if folder else ""
        inside = [path.removeprefix(prefix) for path in self.commit.files if path.startswith(prefix)]
        every = {*inside, *(parent for path in inside for parent in _parents(path))}
        return [prefix + path for path in sorted(every) if recursive or "/" not in path]

    def _entry(self, path: str, expand: bool) -> Entry:
        content = self.commit.files.get(path)
        if content is None:
            entry: Entry = {"type": "directory", "oid": _folder_oid(self.commit, path), "size": 0, "path": path}
        else:
            entry = {"type": "file", "oid": self._oid(path, content), "size": content.size, "path": path}
            if self.repo.is_lfs(path):
                lfs = {"oid": content.sha256, "size": content.size, "pointerSize": len(pointer(content))}
                entry |= {"lfs": lfs, **({"xetHash": content.sha256} if self.repo.xet else {})}
        if expand:
            entry["lastCommit"] = {"id": self.commit.sha, "title": "Upload", "date": MADE}
        return entry

    def _sibling(self, path: str, blobs: bool) -> Entry:
        content = self.commit.files[path]
        if not blobs:
            return {"rfilename": path}
        sibling: Entry = {"rfilename": path, "size": content.size, "blobId": self._oid(path, content)}
        if self.repo.is_lfs(path):
            sibling["lfs"] = {"sha256": content.sha256, "size": content.size, "pointerSize": len(pointer(content))}
        return sibling

    def _oid(self, path: str, content: Content) -> str:
        """Return the hash that git has: for an LFS file, that of its pointer."""
        return Stored(pointer(content)).git_oid if self.repo.is_lfs(path) else content.git_oid


def _yes(values: list[str] | None) -> bool:
    return (values or [""])[0].lower() in ("true", "1")


def _parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _folder_oid(commit: Commit, path: str) -> str:
    return hashlib.sha1(f"{commit.sha} {path}".encode()).hexdigest()


def _tags(front: Entry) -> list[str]:
    """Return the card's tags and the ones that the hub makes of its other fields."""
    bases = front.get("base_model") or []
    licence = [f"license:{front['license']}"] if "license" in front else []
    own = [str(tag) for tag in front.get("tags") or []]
    named = [str(front[key]) for key in ("library_name", "pipeline_tag") if key in front]
    return own + named + licence + [f"base_model:{base}" for base in ([bases] if isinstance(bases, str) else bases)]


def _json(answer: object) -> Reply:
    text = json.dumps(answer, default=str)
    return Reply(200, {"Content-Type": "application/json; charset=utf-8"}, Stored(text.encode()))
