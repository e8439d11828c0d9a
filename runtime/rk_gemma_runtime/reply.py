"""One answer on its way."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.answer import Answer
    from rk_gemma_runtime.stop import Stop


class Reply(Iterator[str]):
    """An iterator of pieces of text. Nothing is run before the first `next`, in which it also waits for its turn.

    Iterate in one thread at a time; `cancel` from any. Dropping it is closing it. `next` raises EngineError,
    NpuError, NoBackendError, WorkerDied, WorkerHung; UsageError where another answer is in progress or the model was
    closed.
    """

    def __init__(self, pieces: Generator[str, None, None], stop: Stop, slot: list[Answer]) -> None:
        """`pieces` ends soon after `stop` is wished, and puts the answer into `slot`. It must not know this object,
        or dropping it would close nothing."""
        self._pieces, self._stop, self._slot = pieces, stop, slot

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def answer(self) -> Answer | None:
        """The numbers, once it is over; None before, and if it failed before it began."""
        return self._slot[0] if self._slot else None

    @property
    def stop(self) -> Stop:
        """The wish to end it, for what waits beside it."""
        return self._stop

    def cancel(self) -> None:
        """End this answer and no other, at once, from any thread; its iterator then ends, and its finish reason is
        abort. Without effect on one that is over."""
        self._stop.wish()

    def close(self) -> None:
        """Give it up, as the `close` of a generator. Does not wait for the worker: the next answer does."""
        self._stop.wish()
        with suppress(ValueError):  # another thread is iterating: it ends there
            self._pieces.close()

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
