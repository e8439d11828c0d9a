"""The asyncio twin of the assistant. Answers are made in one thread of its own; the event loop never blocks."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from rk_gemma_runtime.assistant import Assistant
from rk_gemma_runtime.asyncturns import AsyncTurns, turn
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.options import Options
from rk_gemma_runtime.stop import Stopped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from rk_gemma_runtime.answer import Answer
    from rk_gemma_runtime.assistant import Turn
    from rk_gemma_runtime.chat import Message, Tokenizer
    from rk_gemma_runtime.events import Applied, Degraded, Event
    from rk_gemma_runtime.jobs import Sampling
    from rk_gemma_runtime.options import Changes, Preference
    from rk_gemma_runtime.reply import Reply

Result = TypeVar("Result")


class AsyncReply(AsyncIterator[str]):
    """One answer on its way, for an event loop. Its turn comes after those whose first piece was asked for before.
    Cancelling the task that iterates ends this answer and no other."""

    def __init__(self, pieces: AsyncGenerator[str, None], reply: Reply) -> None:
        self._pieces, self._reply = pieces, reply
        # Dropped half-way: its generator is closed by a task that comes later, and the next question before it.
        weakref.finalize(self, reply.cancel).atexit = False

    def __aiter__(self) -> AsyncReply:
        return self

    async def __anext__(self) -> str:
        return await self._pieces.__anext__()

    @property
    def answer(self) -> Answer | None:
        """The numbers, once it is over; None before."""
        return self._reply.answer

    def cancel(self) -> None:
        """End this answer at once; its iterator then ends. From any thread."""
        self._reply.cancel()

    async def aclose(self) -> None:
        """Give it up. Does not wait for the worker: the next answer does."""
        self._reply.cancel()
        with suppress(RuntimeError):  # another task is iterating: it ends there
            await self._pieces.aclose()


class AsyncAssistant:
    """As Assistant, for one event loop. Calls that need the engine come one after the other, in the order in which
    they were made."""

    def __init__(self, assistant: Assistant, thread: ThreadPoolExecutor) -> None:
        """`thread`: one thread, which this object owns from now on."""
        self.sync = assistant
        self._begin(thread)

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        options: Options | None = None,
        *,
        on_notice: Callable[[Degraded], object] | None = None,
        on_remedy: Callable[[Applied], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        **changes: Unpack[Changes],
    ) -> Opening:
        """As Assistant.open, without blocking the loop: `async with AsyncAssistant.open(...) as gemma`, or
        `gemma = await AsyncAssistant.open(...)` and `close` later. What is to be called is called in the loop's
        thread."""
        chosen = (options or Options()).changed(changes)
        return Opening(bundle, chosen, (on_notice, on_remedy, on_event))

    async def __aenter__(self) -> AsyncAssistant:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def bundle(self) -> Bundle:
        """What was opened."""
        return self.sync.bundle

    @property
    def history(self) -> list[Message]:
        """The conversation so far. May be changed."""
        return self.sync.history

    @history.setter
    def history(self, turns: Sequence[Message]) -> None:
        self.sync.history = list(turns)

    @property
    def just_forgot(self) -> bool:
        """As Assistant.just_forgot."""
        return self.sync.just_forgot

    @property
    def last(self) -> Answer | None:
        """The answer that ended last; with several at a time, ask the reply."""
        return self.sync.last

    @property
    def backend(self) -> str:
        """npu or cpu: what answers now."""
        return self.sync.backend

    @property
    def degraded(self) -> Degraded | None:
        """Why the NPU does not answer, if it was asked, and when it is tried again."""
        return self.sync.degraded

    @property
    def remedies(self) -> tuple[Applied, ...]:
        """What was changed to make the NPU load, in order."""
        return self.sync.remedies

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.sync.context

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker."""
        return self.sync.worker_pid

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer. Raises UsageError for an ids-only bundle."""
        return self.sync.tokenizer

    def chat(
        self,
        message: str | Sequence[Turn],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        wait: bool = True,
    ) -> AsyncReply:
        """As Assistant.chat; what is wrong with the request is raised here. Without `wait`, UsageError is raised
        while another answer is in progress."""
        self._check(wait)
        reply = self.sync.chat(message, max_tokens=max_tokens, temperature=temperature, sampling=sampling, wait=wait)
        return AsyncReply(self._stream(reply, wait), reply)

    def generate(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        wait: bool = True,
    ) -> AsyncReply:
        """As Assistant.generate; `wait` as in `chat`."""
        self._check(wait)
        reply = self.sync.generate(ids, max_tokens=max_tokens, temperature=temperature, sampling=sampling, wait=wait)
        return AsyncReply(self._stream(reply, wait), reply)

    async def logits(self, ids: Sequence[int]) -> NDArray[Any]:
        """As Assistant.logits."""
        return await self._in_turn(lambda: self.sync.logits(ids, wait=True))

    async def hidden_states(self, ids: Sequence[int]) -> NDArray[Any]:
        """As Assistant.hidden_states."""
        return await self._in_turn(lambda: self.sync.hidden_states(ids, wait=True))

    async def prefer(self, backend: Preference) -> None:
        """As Assistant.prefer, when its turn has come."""
        await self._in_turn(lambda: self.sync.prefer(backend, wait=True))

    async def reset(self, system: str = "") -> None:
        """As Assistant.reset, when its turn has come."""
        await self._in_turn(lambda: self.sync.reset(system))

    def abort(self) -> None:
        """Stop the answer in progress; its iterator ends. From any thread."""
        self.sync.abort()

    def forget(self) -> None:
        """Drop the engine's prompt cache; the next answer prefills everything."""
        self.sync.forget()

    async def close(self) -> None:
        """End the worker, also in an answer, which then ends; who waits for a turn gets UsageError. May be called
        twice."""
        self._turns.close()
        try:
            await asyncio.shield(_aside(self.sync.close))  # the thread of answers may be in one
        finally:
            self._thread.shutdown(wait=False)

    def _begin(self, thread: ThreadPoolExecutor) -> None:
        self._process = os.getpid()
        self._turns = AsyncTurns()
        self._thread = thread

    def _check(self, wait: bool) -> None:
        if self._process != os.getpid():  # a forked child has none of the threads
            self._begin(_one_thread())
        self._turns.check(wait)

    async def _in_turn(self, call: Callable[[], Result]) -> Result:
        self._check(wait=True)
        async with turn(self._turns):
            self._check(wait=True)
            return await self._run(call)

    async def _run(self, call: Callable[[], Result]) -> Result:
        """In the thread of answers. If this task is cancelled the call is not: what it does must end by itself."""
        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        except RuntimeError:  # it has been shut down: an answer that was in progress comes here for its end
            future = _aside(call)
        return await future

    async def _stream(self, reply: Reply, wait: bool) -> AsyncGenerator[str, None]:
        turns, end = self._turns, object()
        try:
            await turns.take(wait, reply.stop)
        except Stopped:
            next(reply, end)  # which has not begun, and so notes its end at once
            return
        try:
            self._check(wait=True)
            while (piece := await self._run(lambda: next(reply, end))) is not end:
                assert isinstance(piece, str)
                yield piece
                turns.hold()
        finally:
            reply.cancel()  # a thread that waits for its next piece hears of it; closing comes after that
            try:
                await asyncio.shield(self._run(reply.close))
            finally:
                turns.give_back()


class Opening:
    """An AsyncAssistant on its way: await it, or enter it."""

    def __init__(self, bundle: str | Path, options: Options, hear: tuple[Any, Any, Any]) -> None:
        self._bundle, self._options, self._hear = bundle, options, hear
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
        loop, thread = asyncio.get_running_loop(), _one_thread()
        on_notice, on_remedy, on_event = (_in_loop(loop, hear) for hear in self._hear)

        def make() -> Assistant:
            bundle = Bundle.open(self._bundle)
            return Assistant(bundle, self._options, on_notice, on_remedy, on_event, load=False)

        try:
            assistant = await loop.run_in_executor(thread, make)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        opened = AsyncAssistant(assistant, thread)
        try:
            await opened._run(assistant.model.load)
        except BaseException:
            await opened.close()  # ends a load that goes on although nobody waits for it
            raise
        return opened


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="rk-gemma")


def _aside(call: Callable[[], Result]) -> asyncio.Future[Result]:
    """In a thread that lives as long as the call."""
    thread = _one_thread()
    try:
        return asyncio.get_running_loop().run_in_executor(thread, call)
    finally:
        thread.shutdown(wait=False)


def _in_loop(loop: asyncio.AbstractEventLoop, hear: Callable[[Any], object] | None) -> Callable[[Any], object] | None:
    if hear is None:
        return None

    def tell(event: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(hear, event)

    return tell
