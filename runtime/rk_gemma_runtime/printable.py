"""Text from outside, made fit for one line of output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 80
COMMANDS = ("sudo", "echo", "for", "docker", "pip", "rk-gemma", "ps", "ls", "git")  # first words


def one_line(text: str) -> str:
    """Write everything that is not printable as an escape: newlines, control characters, half of a surrogate pair.
    Nothing that a file's name or content has put into the text can break the line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def fold(text: str, first: str = "", rest: str | None = None) -> Iterator[str]:
    """Fold a text at its blanks: `first` before the first line, `rest` (blanks of the same length) before the others.
    A line of a command ends in a backslash where it is folded, so that it can be copied. A word longer than a line
    stays whole."""
    import textwrap  # no answer waits for it

    indent = " " * len(first) if rest is None else rest
    command = text.split(" ", 1)[0] in COMMANDS
    lines = textwrap.wrap(
        text, WIDTH - 2 * command, initial_indent=first, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    for number, line in enumerate(lines, 1):
        yield f"{line} \\" if command and number < len(lines) else line
