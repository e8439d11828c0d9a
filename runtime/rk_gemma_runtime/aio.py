"""The asyncio twin of the assistant. The answer is made in one thread of its own; the event loop never blocks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.assistant import Assistant

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator
    from pathlib import Path
    from types import TracebackType

    from rk_gemma_runtime.answer import Answer

_END = object()


class AsyncAssistant:
    """As Assistant, for an event loop. Cancelling the task that iterates aborts the answer."""

    def __init__(self, assistant: Assistant, thread: ThreadPoolExecutor) -> None:
        self.sync = assistant
        self._thread = thread
        self._closed = False

    @classmethod
    def open(cls, bundle: str | Path, **options: Any) -> Opening:
        """As Assistant.open, without blocking the loop: `async with AsyncAssistant.open(...) as gemma`, or
        `gemma = await AsyncAssistant.open(...)` and `close` later."""
        return Opening(bundle, options)

    async def __aenter__(self) -> AsyncAssistant:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def backend(self) -> str:
        """npu or cpu: what answers now."""
        return self.sync.backend

    @property
    def last(self) -> Answer | None:
        """The numbers of the last answer."""
        return self.sync.last

    def chat(self, message: Any, **options: Any) -> AsyncGenerator[str, None]:
        """As Assistant.chat. Closing the iterator (`aclose`) aborts the answer."""
        return self._stream(self.sync.chat(message, **options))

    def generate(self, ids: Any, **options: Any) -> AsyncGenerator[str, None]:
        """As Assistant.generate."""
        return self._stream(self.sync.generate(ids, **options))

    async def logits(self, ids: Any) -> Any:
        """As Assistant.logits."""
        return await self._run(lambda: self.sync.logits(ids))

    async def hidden_states(self, ids: Any) -> Any:
        """As Assistant.hidden_states."""
        return await self._run(lambda: self.sync.hidden_states(ids))

    async def reset(self, system: str = "") -> None:
        """As Assistant.reset."""
        await self._run(lambda: self.sync.reset(system))

    async def close(self) -> None:
        """End the worker. May be called twice."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._run(self.sync.close))
            self._thread.shutdown(wait=False)

    async def _run(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _stream(self, pieces: Iterator[str]) -> AsyncGenerator[str, None]:
        try:
            while (piece := await self._run(lambda: next(pieces, _END))) is not _END:
                yield piece
        finally:
            self.sync.abort()  # without effect on an answer that has ended
            await asyncio.shield(self._run(pieces.close))  # type: ignore[attr-defined]


class Opening:
    """An AsyncAssistant on its way: await it, or enter it."""

    def __init__(self, bundle: str | Path, options: dict[str, Any]) -> None:
        self._bundle, self._options = bundle, options
        self._opened: AsyncAssistant | None = None

    def __await__(self) -> Generator[Any, None, AsyncAssistant]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncAssistant:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def _open(self) -> AsyncAssistant:
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rk-gemma")
        try:
            loop = asyncio.get_running_loop()
            assistant = await loop.run_in_executor(thread, lambda: Assistant.open(self._bundle, **self._options))
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return AsyncAssistant(assistant, thread)
