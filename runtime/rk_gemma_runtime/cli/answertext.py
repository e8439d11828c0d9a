"""An answer on stdout while it grows, beside notices on stderr that may come in the middle of its line."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress


class AnswerText:
    """What has been written of one answer. `part` is called by the verb, `step_aside` from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = False
        self._shared = sys.stdout.isatty() and sys.stderr.isatty()

    def part(self, piece: str) -> None:
        """Write a piece, at once."""
        with self._lock:
            if not piece:
                return
            self._within = True  # before it is seen: Ctrl-C may come as soon as it is
            sys.stdout.write(piece)
            sys.stdout.flush()
            self._within = not piece.endswith("\n")

    def end(self) -> None:
        """End the answer's last line, empty or not."""
        with self._lock:
            print(flush=True)
            self._within = False

    def step_aside(self) -> None:
        """Begin a line for a notice, where both go to one terminal and the answer stands in the middle of its line.
        In a pipe or a file the answer stays as it is."""
        if not self._shared:  # nor does a notice wait for who reads the pipe
            return
        with self._lock:
            if self._within:
                self._within = False
                with suppress(OSError):
                    print(flush=True)
