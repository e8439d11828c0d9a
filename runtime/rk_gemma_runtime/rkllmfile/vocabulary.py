"""The tokens inside an `.rkllm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.rkllmfile.cursor import Beyond, Cursor
from rk_gemma_runtime.rkllmfile.layout import STRING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.rkllmfile.keys import Keys
    from rk_gemma_runtime.rkllmfile.layout import Entry
    from rk_gemma_runtime.rkllmfile.source import Source


def tokens(source: Source, keys: Keys) -> Iterator[bytes] | None:
    """Return the tokens in order, as UTF-8; None if there are none, or one is longer than the mask is known. Reading
    them raises InputError if the file changed since its head was read."""
    entry, mask = keys.array("tokenizer.ggml.tokens"), keys.mask
    if entry is None or mask is None or entry.of != STRING:
        return None
    known = mask.known()
    return _walk(source, entry, known) if entry.longest[1] <= len(known) else None


def _walk(source: Source, entry: Entry, mask: bytes) -> Iterator[bytes]:
    cursor = Cursor(source, entry.at)
    for _ in range(entry.length):
        try:
            cipher = _token(cursor, len(mask))
        except Beyond as error:
            raise InputError(f"{source.name}: {error}; it was changed while it was read") from error
        whole = int.from_bytes(cipher, "little") ^ int.from_bytes(mask[: len(cipher)], "little")
        yield whole.to_bytes(len(cipher), "little")


def _token(cursor: Cursor, longest: int) -> bytes:
    length = cursor.length("a token")
    if length > longest:  # held against the head before; a larger one is not read
        raise Beyond(cursor.at, "a token")
    return cursor.take(length, "a token")
