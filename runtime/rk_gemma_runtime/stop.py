"""The wish to end one answer, from whichever thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stopped(Exception):
    """What was being waited for is no longer wanted. Never leaves the runtime."""


class Stop:
    """Belongs to one answer (or one load) and to no other. Thread-safe; a wish cannot be taken back."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._hooks: list[Callable[[], object]] = []
        self._wished = False

    @property
    def wished(self) -> bool:
        """Whether it is to end."""
        return self._wished

    def wish(self) -> None:
        """End it. Returns at once; a second wish does nothing."""
        with self._lock:
            hooks = [] if self._wished else [*self._hooks]
            self._wished = True
            for hook in hooks:
                hook()

    def check(self) -> None:
        """Raises Stopped if it is to end."""
        if self._wished:
            raise Stopped

    @contextmanager
    def told_to(self, hook: Callable[[], object]) -> Iterator[None]:
        """While this is open, a wish calls `hook`, in the wishing thread; one that came before calls it now. `hook`
        must be quick and must not raise. When this is left, no call is on its way any more."""
        with self._lock:
            self._hooks.append(hook)
            if self._wished:
                hook()
        try:
            yield
        finally:
            with self._lock:
                self._hooks.remove(hook)
