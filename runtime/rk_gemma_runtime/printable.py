"""Text from outside, made fit for one line of output."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Write everything that is not printable as an escape: newlines, control characters, half of a surrogate pair.
    Nothing that a file's name or content has put into the text can break the line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
