"""Tokens on their way out. One goes at once; those that come within a moment after it go together.

At a model's speed every token is sent when it is made. A burst costs one system call each BURST_S instead of one a
token, and no token waits longer than that.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rk_gemma_runtime import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.engines.base import OnToken

BURST_S = 0.002


class Outbox:
    """Filled from the library's thread, emptied from there or from a thread of its own."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        """`send` takes whole frames, from any thread."""
        self._send = send
        self._ids: list[int] = []
        self._flushing = threading.Lock()
        self._calm = True
        self._burst = threading.Event()
        self._number = 0
        self.sent = 0
        threading.Thread(target=self._sweep, daemon=True).start()

    def begin(self, number: int) -> OnToken:
        """The sink for the tokens of job `number`."""
        self._number = number
        add = self._ids.append

        def on_token(token: int) -> None:
            add(token)
            if self._calm:
                self._calm = False
                self.flush()
                self._burst.set()

        return on_token

    def flush(self) -> None:
        """Send what waits. Blocks while the parent does not read."""
        with self._flushing:
            ids = self._ids[:]
            if not ids:
                return
            del self._ids[: len(ids)]  # the library's thread may have added more behind them
            self._send(wire.encode_tokens(self._number, ids))
            self.sent += len(ids)

    def _sweep(self) -> None:
        while True:
            self._burst.wait()
            time.sleep(BURST_S)
            if self._ids:
                self.flush()
                continue
            self._burst.clear()
            self._calm = True
            if self._ids:  # it came just before that
                self.flush()
