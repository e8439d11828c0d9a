"""How often a run that has brought nothing is tried again."""

from __future__ import annotations

import time

BUSY_S = 1.0  # so long after an abort the library may refuse the next run
MOMENT_S = 0.25  # after a load, or a run that has ended by itself
PAUSE_S = 0.02  # then twice as long each time, up to
LONGEST_PAUSE_S = 0.1


class Tries:
    """Of one job: for a while after a refusal, and once more after an end without anything; what an abort has left
    behind may cause both."""

    def __init__(self, halted: bool) -> None:
        """`halted`: the run before was aborted; refusals are then borne for longer."""
        self._until = time.monotonic() + (BUSY_S if halted else MOMENT_S)
        self._refused = self._empty = 0

    def after_refusal(self) -> bool:
        """Whether to try again, after a pause."""
        self._refused += 1
        if self._refused > 1 and time.monotonic() >= self._until:
            return False
        time.sleep(min(LONGEST_PAUSE_S, PAUSE_S * 2 ** (self._refused - 1)))
        return True

    def after_nothing(self) -> bool:
        """Whether to try again a run that came back without an error."""
        self._empty += 1
        return self._empty <= 1
