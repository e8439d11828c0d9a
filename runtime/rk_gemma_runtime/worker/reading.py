"""How much of a model this process has read, while it loads one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rk_gemma_runtime.worker.life import bytes_read

if TYPE_CHECKING:
    from collections.abc import Iterator


STEP = 1 << 16  # looking reads a little too, and must not look like progress


class ReadingMeter:
    """Started and stopped by the thread that loads, looked at by the one that listens."""

    def __init__(self) -> None:
        self._total = self._before = self._told = 0

    @contextmanager
    def reading(self, model: str) -> Iterator[None]:
        """While this is open, `model` is being loaded."""
        self.start(model)
        try:
            yield
        finally:
            self.stop()

    def start(self, model: str) -> None:
        """A load of this file begins."""
        self._before, self._told = bytes_read(), 0
        try:
            self._total = os.stat(model).st_size
        except OSError:  # the engine will say what is wrong with it
            self._total = 0

    def stop(self) -> None:
        """It has ended."""
        self._total = 0

    def advanced(self) -> tuple[int, int] | None:
        """(bytes read, bytes of the file) if there are clearly more than at the last call."""
        total = self._total
        if not total:
            return None
        done = min(total, bytes_read() - self._before)
        if done < self._told + STEP:
            return None
        self._told = done
        return done, total
