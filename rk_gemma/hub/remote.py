"""A file on the hub as a Source: read in pieces, before anything is downloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma.hub.faults import HubError, hub_faults
from rk_gemma.hub.files import in_cache
from rk_gemma.hub.http import Patience, client_errors, is_passing, opened
from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.rkllmfile.kinds import PAGES, foreign_kind
from rk_gemma_runtime.rkllmfile.source import BytesSource, FileSource

if TYPE_CHECKING:
    from rk_gemma.hub.files import RemoteFile

HEAD_BYTES, TAIL_BYTES = 1 << 16, 1 << 12


@dataclass
class RemoteSource:
    """A file on the hub, read in pieces; its ends are kept. Not for use by two threads."""

    file: RemoteFile
    patience: Patience = field(default_factory=Patience)
    _kept: dict[int, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.file.repository}/{self.file.path}"

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.size

    def read(self, offset: int, length: int) -> bytes:
        """As a Source does. Raises InputError or HubError."""
        end = min(self.size, offset + length)
        for start, data in self._kept.items():
            if start <= offset and end <= start + len(data):
                return data[offset - start : end - start]
        begin, stop = self._widened(offset, end)
        data = self._fetch(begin, stop) if begin < stop else b""
        if begin == 0 or stop == self.size:
            self._kept[begin] = data
        return data[offset - begin : end - begin]

    def _widened(self, offset: int, end: int) -> tuple[int, int]:
        """A few bytes of an end are asked for with more of it."""
        if offset < HEAD_BYTES and end <= HEAD_BYTES:
            return 0, min(self.size, HEAD_BYTES)
        if offset >= self.size - TAIL_BYTES:
            return max(0, self.size - TAIL_BYTES), self.size
        return offset, end

    def _fetch(self, start: int, end: int) -> bytes:
        """Ask until all of it came; a connection that ends early is gone on with. What the cache has is read from
        there."""
        kept = in_cache(self.file)
        if kept is not None:
            with FileSource(kept) as source:
                return source.read(start, end - start)
        data = bytearray()
        with hub_faults(self.file.repository):
            while len(data) < end - start:
                before = len(data)
                try:
                    self._ask(start + before, end, data)
                except client_errors() as error:
                    if not is_passing(error):
                        raise
                    if len(data) > before:
                        self.patience.reset()
                    self.patience.wait(error, self.name)
        return bytes(data)

    def _ask(self, start: int, end: int, into: bytearray) -> None:
        with opened(self.file, start, end) as response:
            if response.status_code == 416:
                raise InputError(f"{self.name}: shorter than the hub says; try again later")
            skip = start if response.status_code == 200 else 0  # a server without ranges
            wanted = len(into) + end - start
            for block in response.iter_bytes():
                into += block[skip:]
                skip = max(0, skip - len(block))
                if len(into) >= wanted:
                    del into[wanted:]
                    return
        kind = foreign_kind(BytesSource(bytes(into))) if start == 0 and into else None
        if kind is not None and kind.name in PAGES:
            raise InputError(f"{self.name}: what came is {kind.text}; try again later")
        raise HubError(f"{self.name}: the connection ended after {len(into)} bytes")
