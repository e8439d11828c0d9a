"""Whose end it was: a FINISH or ERROR may be a late one of the run before, and bear no sign of it."""

from __future__ import annotations

import threading
import time
from collections import deque

LATE_TOKENS = 8  # so many behind an end show that it was not this run's
LATE_S = 2.0  # so long an end that was not heard may still come


class Ends:
    """Keeps the tokens that come behind an end, and counts the runs that came back without one.

    Tokens behind an end are the library's slip where every earlier run has had its end. They are this run's where
    another end follows them, where there are many, or where an earlier end is still to come.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, bytes]] = []
        self._sure = 0  # of those held: another end has followed
        self._owed: deque[float] = deque()
        self._open = False
        self._lock = threading.RLock()  # a late end comes in a thread of its own

    def begin(self) -> None:
        """A run begins."""
        with self._lock:
            self._held, self._sure, self._open = [], 0, True

    def hold(self, token: int, text: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        """Keep a token. Those that are known to be this run's by now, and whether all that follow are."""
        with self._lock:
            self._held.append((token, text))
            go_on = len(self._held) - self._sure >= LATE_TOKENS
            return self._take(len(self._held) if go_on else self._sure), go_on

    def confirm(self) -> bool:
        """Another end: what is held is this run's. Whether anything was."""
        with self._lock:
            news = len(self._held) > self._sure
            self._sure = len(self._held)
            return news

    def _take(self, count: int) -> list[tuple[int, bytes]]:
        taken, self._held = self._held[:count], self._held[count:]
        self._sure = max(0, self._sure - count)
        return taken

    def refuse(self) -> None:
        """The run was refused: it owes no end."""
        self._open = False

    def late(self) -> None:
        """An earlier run's end was heard as such."""
        with self._lock:
            if self._owed:
                self._owed.popleft()

    @property
    def awaited(self) -> bool:
        """Whether an earlier run's end may still come."""
        with self._lock:
            while self._owed and time.monotonic() - self._owed[0] > LATE_S:
                self._owed.popleft()
            return bool(self._owed)

    def close(self, heard: bool) -> list[tuple[int, bytes]]:
        """The call has come back. `heard`: there was an end. What was kept and is this run's after all."""
        if not self._open:
            return []
        self._open = False
        with self._lock:
            awaited = self.awaited
            others = awaited and len(self._held) > self._sure  # the end that was heard
            if others:
                self.late()
            if others or not heard:
                self._owed.append(time.monotonic())
            return self._take(len(self._held) if awaited else self._sure)
