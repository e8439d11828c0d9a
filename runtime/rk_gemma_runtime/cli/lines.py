"""What a person types, or a pipe brings: one message at a time."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.cli.talk import say
from rk_gemma_runtime.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = 1000
PROMPT, MORE = "> ", ". "


class Lines:
    """Iterates over messages. On a terminal with line editing and a history file; from a pipe, line by line."""

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._file = _history_file()

    def __enter__(self) -> Lines:
        if self.interactive:
            import readline

            # Pasted lines arrive as one input; needs GNU readline 7 or later.
            readline.parse_and_bind("set enable-bracketed-paste on")
            readline.set_history_length(KEPT)
            with suppress(OSError):
                readline.read_history_file(self._file)
        return self

    def __exit__(self, *error: object) -> None:
        if self.interactive:
            import readline

            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(self._file)
                self._file.chmod(0o600)

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                message = self._message()
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                print(flush=True)
                say("/quit or Ctrl-D leaves")
                continue
            if message.strip():
                yield message

    def _message(self) -> str:
        """One message: lines that end in a backslash go on in the next."""
        parts = [self._line(PROMPT)]
        while parts[-1].endswith("\\"):
            parts[-1] = parts[-1][:-1]
            parts.append(self._line(MORE))
        return "\n".join(parts)

    def _line(self, prompt: str) -> str:
        return input(prompt) if self.interactive else _piped()


def _piped() -> str:
    raw = sys.stdin.buffer.readline()
    if not raw:
        raise EOFError
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise PromptError(f"stdin: not UTF-8 at byte {error.start}; convert it first") from error


def _history_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "rk-gemma" / "history"
