"""Whose turn it is: one at a time, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.stop import Stop

BUSY = "another answer is in progress; one at a time (wait=True waits for its end)"
OWN = "this thread holds an unfinished answer; finish or close it before it waits for another"
CLOSED = "this model is closed"
OWN_S = 3.0  # so long nothing goes on with what has the turn: nothing will, if it was this thread that should


class Turns:
    """A lock with a queue. Fair, and not bound to a thread: what a thread took may be given back by another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # its lock may be taken again by the thread that has it
        self._queue: deque[Stop] = deque()
        self._owner = 0  # the thread that last went on with what has the turn, and how often one did
        self._steps = 0
        self._closed = False

    @property
    def taken(self) -> bool:
        """Whether it is somebody's turn, or somebody waits."""
        return bool(self._queue)

    def go_on(self) -> None:
        """This thread goes on with what has the turn. Cheap: called for every piece of an answer."""
        self._owner = threading.get_ident()
        self._steps += 1

    def close(self) -> None:
        """Give no turn any more. Who waits gets UsageError; who has it keeps it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check(self, wait: bool) -> None:
        """Raises UsageError if `turn` would, as far as that is known yet."""
        with self._changed:
            self._check(wait)

    @contextmanager
    def turn(self, wait: bool, stop: Stop) -> Iterator[None]:
        """Have the turn, which `stop` belongs to. With `wait` it blocks until it comes, or until `stop` is wished.

        Raises UsageError where it is taken and `wait` is false, where waiting would never end, and after `close`;
        Stopped.
        """
        self._take(wait, stop)
        try:
            yield
        finally:
            self._leave(stop)

    def _check(self, wait: bool) -> None:
        if self._closed:
            raise UsageError(CLOSED)
        if self._queue and not wait and (self._own or not all(stop.wished for stop in self._queue)):
            raise UsageError(BUSY)  # what is about to end elsewhere is waited for

    def _take(self, wait: bool, stop: Stop) -> None:
        with self._changed:
            stop.check()
            self._check(wait)
            self._queue.append(stop)
        try:
            with stop.told_to(self._wake):
                self._wait(stop)
        except BaseException:
            self._leave(stop)
            raise

    def _wait(self, stop: Stop) -> None:
        with self._changed:
            while not (self._queue[0] is stop or self._closed or stop.wished):
                steps = self._steps
                if not self._changed.wait(OWN_S) and self._own and steps == self._steps:
                    raise UsageError(OWN)
            stop.check()
            if self._closed:
                raise UsageError(CLOSED)
            self._owner = threading.get_ident()

    @property
    def _own(self) -> bool:
        """Whether this thread was the last that went on with what has the turn."""
        return self._owner == threading.get_ident()

    def _leave(self, stop: Stop) -> None:
        with self._changed:
            if self._queue[0] is stop:
                self._owner = 0
            self._queue.remove(stop)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
