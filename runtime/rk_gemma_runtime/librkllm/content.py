"""One pass over a library's bytes: the versions it names, and what it is called by its content."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from rk_gemma_runtime.librkllm.releases import Release

CHUNK = 1 << 20
OVERLAP = 96  # longer than anything that is looked for
# "rknn llm lib version" and "librknnrt version" in the same file number another library.
VERSION = re.compile(rb"RKLLM SDK \(version: ([0-9][0-9A-Za-z.+_-]{0,30})[ |)]")
LITERAL = re.compile(rb"1\.[0-9]\.[0-9][0-9A-Za-z.-]{0,8}(?=\0)")


@dataclass(frozen=True)
class Content:
    """`versions`: of "RKLLM SDK (version: X"; `literals`: NUL-bounded release-like texts. Both sorted."""

    versions: tuple[str, ...]
    literals: tuple[str, ...]
    release: Release | None


def read_content(file: BinaryIO, releases: tuple[Release, ...]) -> Content:
    """Read the file once, from its start. Raises OSError."""
    size = os.fstat(file.fileno()).st_size
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    # Hashed twice only where the size says that it may be worth it.
    sha256 = hashlib.sha256() if any(r.sha256 and r.size == size for r in releases) else None
    versions: set[str] = set()
    literals: set[str] = set()
    tail = b""
    file.seek(0)
    while chunk := file.read(CHUNK):
        blob.update(chunk)
        if sha256 is not None:
            sha256.update(chunk)
        window = tail + chunk
        versions.update(found.group(1).decode() for found in VERSION.finditer(window))
        literals.update(_literals(window))
        tail = window[-OVERLAP:]
    by_content = {blob.hexdigest(), sha256.hexdigest() if sha256 else ""} - {""}
    release = next((r for r in releases if by_content & {r.blob, r.sha256}), None)
    return Content(tuple(sorted(versions)), tuple(sorted(literals)), release)


def _literals(window: bytes) -> Iterator[str]:
    """A look-behind for the NUL in front would make the search some twenty times slower."""
    for found in LITERAL.finditer(window):
        if window[found.start() - 1 : found.start()] == b"\0":
            yield found.group().decode()
