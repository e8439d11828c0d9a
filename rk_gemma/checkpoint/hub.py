"""What huggingface_hub leaves beside the files that it downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.bundle import sha256_of
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path


def check_digest(path: Path) -> None:
    """Compare the file with its sha256, if `huggingface_hub` left it (the etag of an LFS file). Raises
    CheckpointError."""
    note = path.parent / ".cache/huggingface/download" / f"{path.name}.metadata"
    if not note.is_file():
        return
    lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
    etag = lines[1].strip() if len(lines) > 1 else ""
    if len(etag) == 64 and sha256_of(path) != etag:
        raise CheckpointError(f"{path}: sha256 differs from the hub's; the file is damaged, download it again")
