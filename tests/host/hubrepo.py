"""Repositories of the test hub as data: commits, branches, tags, the card, and who may read them."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import yaml
from hubcontent import Content, Given, content_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LFS = ("*.rkllm", "*.gguf", "*.safetensors", "*.bin", "*.model")
Files = dict[str, Content]


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    sha: str
    files: Files


@dataclass
class Repo:
    """A repository. Every change makes a commit; earlier commits stay readable by their hash.

    `branches` hold files of their own; `tags` name a branch, a commit, or files of their own. `tokens` may read the
    repository if it is private, and its files if it is gated. `xet` offers every LFS file over Xet as well.
    """

    name: str
    files: Mapping[str, Given] = field(default_factory=dict)
    branches: Mapping[str, Mapping[str, Given]] = field(default_factory=dict)
    tags: Mapping[str, str | Mapping[str, Given]] = field(default_factory=dict)
    gated: Literal[False, "auto", "manual"] = False
    private: bool = False
    disabled: bool = False
    tokens: set[str] = field(default_factory=set)
    renamed_from: str | tuple[str, ...] = ()
    lfs: tuple[str, ...] = LFS
    xet: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._commits: dict[str, Commit] = {}
        self._branches = {name: self._commit(files) for name, files in {"main": self.files, **self.branches}.items()}
        self._tags = {name: self._tagged(target) for name, target in self.tags.items()}

    @property
    def former_names(self) -> tuple[str, ...]:
        """Names that redirect here."""
        return (self.renamed_from,) if isinstance(self.renamed_from, str) else tuple(self.renamed_from)

    def put(self, path: str, given: Given | None, branch: str = "main") -> str:
        """Upload a file, or delete it if None is given; return the new commit's hash."""
        with self._lock:
            files: dict[str, Given] = dict(self._branches[branch].files)
            files.pop(path, None)
            if given is not None:
                files[path] = given
            self._branches[branch] = self._commit(files)
            return self._branches[branch].sha

    def commit(self, revision: str = "main") -> Commit:
        """Return the commit of a branch, a tag or a full hash, which must exist."""
        found = self.find(revision)
        if found is None:
            raise KeyError(revision)
        return found

    def file(self, path: str, revision: str = "main") -> Content:
        """Return the content of a file, which must exist."""
        return self.commit(revision).files[path]

    def find(self, revision: str) -> Commit | None:
        """Return the commit of a branch, a tag or a full hash; None for an unknown one."""
        name = revision
        for prefix in ("refs/heads/", "refs/tags/"):
            name = name.removeprefix(prefix)
        return self._branches.get(name) or self._tags.get(name) or self._commits.get(revision)

    def refs(self) -> dict[str, list[dict[str, str]]]:
        """Return branches and tags as the hub lists them."""
        kinds = {"branches": ("heads", self._branches), "tags": ("tags", self._tags)}
        return {
            kind: [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": commit.sha}
                for name, commit in list(table.items())
            ]
            for kind, (folder, table) in kinds.items()
        }

    def is_lfs(self, path: str) -> bool:
        """Tell whether a file lies in LFS."""
        return any(fnmatch.fnmatchcase(path.rpartition("/")[2], pattern) for pattern in self.lfs)

    def may_read_files(self, token: str | None) -> bool:
        """Tell whether a token opens the files."""
        return not (self.gated or self.private) or token in self.tokens

    def _commit(self, files: Mapping[str, Given]) -> Commit:
        contents = {path: content_of(given) for path, given in sorted(files.items())}
        listing = [f"{path} {content.size} {content.sha256}" for path, content in contents.items()]
        sha = hashlib.sha1("\n".join([self.name, str(len(self._commits)), *listing]).encode()).hexdigest()
        return self._commits.setdefault(sha, Commit(sha, contents))

    def _tagged(self, target: str | Mapping[str, Given]) -> Commit:
        if not isinstance(target, str):
            return self._commit(target)
        return self._branches.get(target) or self._commits[target]


def pointer(content: Content) -> bytes:
    """Return the pointer that git holds in place of an LFS file."""
    lines = "version https://git-lfs.github.com/spec/v1", f"oid sha256:{content.sha256}", f"size {content.size}"
    return "".join(f"{line}\n" for line in lines).encode()


def card(files: Files) -> dict[str, Any] | None:
    """Return the front matter of README.md; None without one, or if it cannot be read."""
    text = _text(files.get("README.md"))
    if not text.startswith("---\n"):
        return None
    try:
        data = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None


def config(files: Files) -> dict[str, Any] | None:
    """Return what the hub repeats of config.json."""
    try:
        data = json.loads(_text(files.get("config.json")) or "null")
    except ValueError:
        return None
    known = data if isinstance(data, dict) else {}
    return {key: known[key] for key in ("architectures", "model_type") if key in known} or None


def _text(content: Content | None) -> str:
    return b"".join(content.read()).decode(errors="replace") if content is not None else ""
