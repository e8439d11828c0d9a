"""The tokens inside an `.rkllm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.rkllmfile.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.rkllmfile.keys import Keys
    from rk_gemma_runtime.rkllmfile.source import Source


def tokens(source: Source, keys: Keys) -> Iterator[bytes] | None:
    """Return the tokens in order, as UTF-8; None if there are none, or one is longer than the mask is known."""
    entry, mask = keys.array("tokenizer.ggml.tokens"), keys.mask
    if entry is None or mask is None or not mask.reads(entry.longest[1]):
        return None
    return _walk(Cursor(source, entry.at), entry.length, mask.known())


def _walk(cursor: Cursor, count: int, mask: bytes) -> Iterator[bytes]:
    for _ in range(count):
        cipher = cursor.take(cursor.length("a token"), "a token")
        if len(cipher) > len(mask):
            raise ValueError(f"a token of {len(cipher)} bytes")
        whole = int.from_bytes(cipher, "little") ^ int.from_bytes(mask[: len(cipher)], "little")
        yield whole.to_bytes(len(cipher), "little")
