"""Whose turn it is among the tasks of one event loop: one at a time, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.stop import Stop, Stopped
from rk_gemma_runtime.turns import BUSY, CLOSED, OWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AsyncTurns:
    """A lock with a queue, and with two things that asyncio's has not: who waits can be told to stop waiting, and a
    task that would wait for itself is told so."""

    def __init__(self) -> None:
        self._queue: deque[asyncio.Future[None]] = deque()
        self._taken = False
        self._holder: asyncio.Task[object] | None = None
        self._stop: Stop | None = None
        self._closed = False

    @property
    def taken(self) -> bool:
        """Whether it is the turn of something that is not about to end."""
        return self._taken and not (self._stop is not None and self._stop.wished)

    def check(self, wait: bool) -> None:
        """Raises UsageError if `take` would at once."""
        if self._closed:
            raise UsageError(CLOSED)
        if not wait and self.taken:
            raise UsageError(BUSY)

    def close(self) -> None:
        """Give no turn any more. Who waits gets UsageError; who has it keeps it."""
        self._closed = True
        for future in self._queue:
            _end(future, UsageError(CLOSED))

    def hold(self) -> None:
        """The current task is the one that goes on with what has the turn."""
        self._holder = asyncio.current_task()

    async def take(self, wait: bool, stop: Stop) -> None:
        """Have the turn, until `give_back`. Raises UsageError where it is taken and `wait` is false, or where waiting
        would never end; Stopped if `stop` is wished meanwhile."""
        stop.check()
        self.check(wait)
        if self.taken and self._holder is asyncio.current_task():
            raise UsageError(OWN)
        if self._taken:
            await self._wait(stop)
        self._taken, self._stop = True, stop
        self.hold()

    def give_back(self) -> None:
        """Let the next one have it."""
        self._taken, self._holder, self._stop = False, None, None
        while self._queue:
            future = self._queue.popleft()
            if not future.done():
                self._taken = True  # nobody may come in between
                future.set_result(None)
                return

    async def _wait(self, stop: Stop) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.append(future)
        try:
            with stop.told_to(lambda: loop.call_soon_threadsafe(_end, future, Stopped())):
                await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back()  # it came, and is not wanted any more
            future.cancel()
            raise


def _end(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


@asynccontextmanager
async def turn(turns: AsyncTurns) -> AsyncIterator[None]:
    """Have the turn for one call."""
    await turns.take(True, Stop())
    try:
        yield
    finally:
        turns.give_back()
