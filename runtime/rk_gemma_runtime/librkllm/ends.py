"""Whose end it was: a FINISH or ERROR may be a late one of the run before, and bear no sign of it."""

from __future__ import annotations

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
        self.held: list[tuple[int, bytes]] = []
        self._owed: deque[float] = deque()
        self._open = False

    def begin(self) -> None:
        """A run begins."""
        self.held, self._open = [], True

    def hold(self, token: int, text: bytes) -> bool:
        """Keep a token; whether there are so many by now that they are this run's."""
        self.held.append((token, text))
        return len(self.held) >= LATE_TOKENS

    def take(self) -> list[tuple[int, bytes]]:
        """What was kept."""
        held, self.held = self.held, []
        return held

    def refuse(self) -> None:
        """The run was refused: it owes no end."""
        self._open = False

    def late(self) -> None:
        """An earlier run's end was heard as such."""
        if self._owed:
            self._owed.popleft()

    @property
    def awaited(self) -> bool:
        """Whether an earlier run's end may still come."""
        while self._owed and time.monotonic() - self._owed[0] > LATE_S:
            self._owed.popleft()
        return bool(self._owed)

    def close(self, heard: bool) -> list[tuple[int, bytes]]:
        """The call has come back. `heard`: there was an end. What was kept and is this run's after all."""
        if not self._open:
            return []
        self._open = False
        held, awaited = self.take(), self.awaited
        if held and awaited:
            self.late()
        if not heard or (held and awaited):
            self._owed.append(time.monotonic())
        return held if awaited else []
