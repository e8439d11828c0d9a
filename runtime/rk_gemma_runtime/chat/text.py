"""Bytes of tokens become text as soon as they are whole characters."""

from __future__ import annotations

import codecs


class TextStream:
    """Incremental UTF-8: holds back the bytes of an unfinished character, replaces what can never be one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        """The text that this piece completes; often the piece itself, sometimes nothing."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What was held back, as replacement characters; the stream is empty afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
