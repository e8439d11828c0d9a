"""A clock of silence. It runs only while somebody waits."""

from __future__ import annotations

SLICE_S = 1.0


class Silence:
    """Counts waits, in slices. A slice counts as what was asked for, however long it took: a program that was stopped
    (Ctrl-Z), a machine that slept and a clock that was set have not been silent."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._left = limit_s

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self._left <= 0

    def slice_s(self, most: float = SLICE_S) -> float:
        """How long to wait next."""
        return min(most, max(0.0, self._left))

    def passed(self, slice_s: float) -> None:
        """That wait has brought nothing."""
        self._left -= slice_s

    def break_off(self, limit_s: float | None = None) -> None:
        """There was a sign: from the start again, with another limit where one is given."""
        if limit_s is not None:
            self.limit_s = limit_s
        self._left = self.limit_s
