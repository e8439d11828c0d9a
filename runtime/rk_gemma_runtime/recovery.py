"""Trying something again later, in a thread of its own, until it is called off."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from rk_gemma_runtime.stop import Stop

Attempt = Callable[[Stop], Callable[[], object] | None]


class Recovery:
    """At most one try is waited for or in progress. Does not keep alive what it belongs to."""

    def __init__(self, attempt: Attempt) -> None:
        """`attempt` is a bound method, called in the thread. It ends soon once its Stop is wished, and may give a
        function to be called when the try counts as over."""
        self._attempt = weakref.WeakMethod(attempt)
        self._lock = threading.Lock()
        self._try: _Try | None = None

    def schedule(self, delay_s: float, by: Stop | None = None) -> None:
        """Try after so many seconds, in place of a try that is waited for. `by`: the try that says so; one that was
        called off says nothing."""
        with self._lock:
            if by is not None and by.wished:
                return
            if self._try is not None and self._try.stop is not by:
                self._try.stop.wish()
            self._try = _Try(self._attempt, delay_s)
            weakref.finalize(self, self._try.stop.wish).atexit = False

    def call_off(self) -> None:
        """End it; a try in progress is stopped and waited for."""
        with self._lock:
            last, self._try = self._try, None
            if last is not None:
                last.stop.wish()
        if last is not None:
            last.wait()


class _Try:
    """One try, in its thread."""

    def __init__(self, attempt: weakref.WeakMethod[Attempt], delay_s: float) -> None:
        self.stop = Stop()
        self._over = threading.Event()
        arguments = (attempt, delay_s, self.stop, self._over)
        self._thread = threading.Thread(target=_later, args=arguments, daemon=True, name="rk-gemma-recovery")
        self._thread.start()

    def wait(self) -> None:
        """Until it is over; not in its own thread."""
        if self._thread is not threading.current_thread():
            self._over.wait()


def _later(attempt: weakref.WeakMethod[Attempt], delay_s: float, stop: Stop, over: threading.Event) -> None:
    wake = threading.Event()
    afterwards = None
    try:
        with stop.told_to(wake.set):
            if wake.wait(delay_s):
                return
        method = attempt()
        afterwards = method(stop) if method is not None else None
        del method
    finally:
        over.set()
    if afterwards is not None:
        afterwards()
