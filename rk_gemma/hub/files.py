"""A file on the hub, and where huggingface_hub's cache has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

SHA256, SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file at a commit. `sha256` is empty for a small file, which has git's `blob` hash only; `local` is where the
    cache has it."""

    repository: str
    commit: str
    path: str
    size: int
    sha256: str
    blob: str
    local: Path | None = None

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rpartition("/")[2]


def in_cache(file: RemoteFile) -> Path | None:
    """Find a large file in huggingface_hub's cache, where blobs are called as their sha256."""
    if file.local is not None:
        return file.local
    home = Path(constants.HF_HUB_CACHE) / f"models--{file.repository.replace('/', '--')}"
    blob = home / "blobs" / (file.sha256 or file.blob)
    return blob if file.sha256 and blob.is_file() and blob.stat().st_size == file.size else None
