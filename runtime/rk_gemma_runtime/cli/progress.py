"""A line on the terminal that says how far a long wait is. Elsewhere nothing is shown: logs need no movement."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.events import Progress

PATIENCE_S = 1.0  # a shorter wait is not worth a line
WORDS = {"load": "loading the model", "prompt": "reading the prompt"}
CLEAR = "\r\x1b[K"


class ProgressLine:
    """Shown in place, on stderr, and gone when the wait is over. From any thread."""

    def __init__(self) -> None:
        self._shown = False
        self._lock = threading.Lock()
        self._began = 0.0
        self._what = ""

    def show(self, progress: Progress) -> None:
        """Show it, or take the line away when all is done."""
        if not (sys.stderr and sys.stderr.isatty()):
            return
        with self._lock:
            if progress.what != self._what or progress.done < 1:
                self._what, self._began = progress.what, time.monotonic()
            if progress.done >= progress.total:
                self._clear()
                self._what = ""
            elif time.monotonic() - self._began > PATIENCE_S:
                about = "about " if progress.estimated else ""
                text = f"{WORDS[progress.what]}: {about}{100 * progress.done // progress.total} %"
                sys.stderr.write(f"{CLEAR}rk-gemma: {text}")
                sys.stderr.flush()
                self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        if self._shown:
            self._shown = False
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
