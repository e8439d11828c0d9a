"""Downloads that go on where they stopped, in this process or the next, and are believed by their hash only.

The hub's client checks sizes, and begins anew in another process; links to boards are slow.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from rk_gemma.export.growing import beside
from rk_gemma.hub.faults import HubError, hub_faults
from rk_gemma.hub.files import in_cache
from rk_gemma.hub.http import Patience, client_errors, is_passing, opened
from rk_gemma.pack.place import place
from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.rkllmfile.kinds import PAGES, foreign_kind
from rk_gemma_runtime.rkllmfile.source import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.hub.files import RemoteFile

BLOCK = 1 << 20
SYNC_BYTES = 64 << 20


@dataclass
class Download:
    """Brings one file of the hub to a path."""

    file: RemoteFile
    path: Path
    on_bytes: Callable[[int], None]
    patience: Patience = field(default_factory=Patience)
    _unsynced: int = 0

    def run(self) -> str:
        """Download, or go on; return the file's sha256. Blocks. Raises HubError, after which the part stays, and
        InputError for content that is not the hub's."""
        kept = in_cache(self.file)
        if kept is not None:
            digest = self._from_cache(kept)
            if digest:
                return digest
        have = self._begun()
        with hub_faults(self.file.repository), self.path.open("r+b" if have else "wb") as out:
            digest = self._hash_part(out, have)
            while out.tell() < self.file.size:
                digest = self._go_on(out, digest)
        found = digest.hexdigest()
        if not (self.file.sha256 or self.file.blob):
            self.patience.say(f"{self.file.path}: the hub lists no hash of it, so it could not be checked")
        if not self._is_right(found):
            self._refuse()
        beside(self.path).unlink(missing_ok=True)
        return str(found)

    def _from_cache(self, kept: Path) -> str:
        """Link or copy it; empty if it is damaged there and can be downloaded."""
        self.path.unlink(missing_ok=True)
        beside(self.path).unlink(missing_ok=True)
        digest = place(kept, self.path, "link", self.on_bytes)
        if self._is_right(digest):
            return digest
        self.path.unlink()
        if self.file.local is not None:
            raise InputError(f"{kept}: damaged in the cache; remove it and download it again")
        self.patience.say(f"{kept}: damaged in the cache, remove it; it is downloaded")
        self.on_bytes(-self.file.size)
        return ""

    def _begun(self) -> int:
        """Bytes of an earlier try of the same content. Whose they are is noted before the first one comes."""
        side, identity = beside(self.path), {"content": self.file.sha256 or self.file.blob, "size": self.file.size}
        try:
            same = json.loads(side.read_text(encoding="utf-8")) == identity
            have = self.path.stat().st_size if same else 0
        except (OSError, ValueError):
            have = 0
        if 0 < have <= self.file.size:
            return have
        self.path.unlink(missing_ok=True)  # before the note: it would vouch for what is there
        side.write_text(json.dumps(identity), encoding="utf-8")
        return 0

    def _hash_part(self, out: Any, have: int) -> Any:
        digest = hashlib.sha256()
        left = have
        while left and (block := out.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
        self.on_bytes(have)
        return digest

    def _go_on(self, out: Any, digest: Any) -> Any:
        """One request. Returns the hash of what is there, a new one where the server began at the start."""
        before = out.tell()
        try:
            with opened(self.file, before) as response:
                if response.status_code == 416 or (before and response.status_code == 200):
                    digest = self._from_start(out, before)
                if response.status_code != 416:
                    self._take(response, out, digest)
            if out.tell() < self.file.size:
                self._refuse_page(out)
                raise HubError(f"{self.file.path}: the connection ended after {out.tell()} of {self.file.size} bytes")
        except client_errors() as error:
            if not is_passing(error):
                raise
            if out.tell() > before:
                self.patience.reset()
            out.flush()
            self.patience.wait(error, self.file.path)
        return digest

    def _refuse_page(self, out: Any) -> None:
        """An answer that ended well and too early may be a page in place of the file."""
        out.flush()
        with FileSource(self.path) as source:
            kind = foreign_kind(source)
        if kind is not None and kind.name in PAGES:
            self._drop(f"what came is {kind.text}")

    def _from_start(self, out: Any, before: int) -> Any:
        out.seek(0)
        out.truncate()
        self.on_bytes(-before)
        return hashlib.sha256()

    def _take(self, response: Any, out: Any, digest: Any) -> None:
        for block in response.iter_bytes():
            room = self.file.size - out.tell()
            if len(block) > room:
                raise InputError(f"{self.file.path}: more than the {self.file.size} bytes that the hub lists")
            out.write(block)
            digest.update(block)
            self.on_bytes(len(block))
            self._unsynced += len(block)
            if self._unsynced >= SYNC_BYTES:  # what a power cut could take
                out.flush()
                os.fsync(out.fileno())
                self._unsynced = 0

    def _git_hash(self) -> str:
        digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(self.path), usedforsecurity=False)
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def _is_right(self, sha256: str) -> bool:
        """Hold it against the sha256 that the hub lists, of a small file against git's hash."""
        if self.file.sha256:
            return self.file.sha256 == sha256
        return not self.file.blob or self.file.blob == self._git_hash()

    def _refuse(self) -> NoReturn:
        with FileSource(self.path) as source:
            kind = foreign_kind(source)
        self._drop(f"what came is {kind.text}" if kind else "what came has another sha256 than the hub lists")

    def _drop(self, why: str) -> NoReturn:
        self.path.unlink(missing_ok=True)
        beside(self.path).unlink(missing_ok=True)
        place = f"{self.file.repository}/{self.file.path}"
        raise InputError(f"{place}: {why}; nothing of it was kept, try again later")
