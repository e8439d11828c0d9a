"""Trying something again later, in a thread of its own, until it is called off."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from rk_gemma_runtime.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable


class Recovery:
    """At most one try is waited for or in progress. Does not keep alive what it belongs to."""

    def __init__(self, attempt: Callable[[Stop], None]) -> None:
        """`attempt` is a bound method: called in the thread; it ends soon once its Stop is wished."""
        self._attempt = weakref.WeakMethod(attempt)
        self._thread: threading.Thread | None = None
        self._off = threading.Event()
        self._stop = Stop()
        weakref.finalize(self, self._off.set).atexit = False

    def schedule(self, delay_s: float) -> None:
        """Try after so many seconds. May be called by the attempt itself."""
        self._off, self._stop = threading.Event(), Stop()
        weakref.finalize(self, self._off.set).atexit = False
        arguments = (self._attempt, delay_s, self._off, self._stop)
        self._thread = threading.Thread(target=_later, args=arguments, daemon=True, name="rk-gemma-recovery")
        self._thread.start()

    def call_off(self) -> None:
        """End it; a try in progress is stopped and waited for."""
        thread, self._thread = self._thread, None
        self._off.set()
        self._stop.wish()
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _later(
    attempt: weakref.WeakMethod[Callable[[Stop], None]], delay_s: float, off: threading.Event, stop: Stop
) -> None:
    if off.wait(delay_s):
        return
    method = attempt()
    if method is not None:
        method(stop)
