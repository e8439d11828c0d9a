"""A model without a conversation: token ids in, answers out, for as many callers as there are."""

from __future__ import annotations

import operator
import os
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime import wire
from rk_gemma_runtime.answer import Answer, Record
from rk_gemma_runtime.backends import Backends
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.chat.ear import Ear
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.checks import shown, whole
from rk_gemma_runtime.errors import EngineError, PromptError, UsageError
from rk_gemma_runtime.events import Heard, Noticed
from rk_gemma_runtime.jobs import Request, RowsRequest, Sampling
from rk_gemma_runtime.options import Options, preference
from rk_gemma_runtime.reply import Reply
from rk_gemma_runtime.stop import Stop, Stopped
from rk_gemma_runtime.turns import CLOSED, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self, Unpack

    from rk_gemma_runtime.events import Applied, Degraded, Event
    from rk_gemma_runtime.options import Changes, Preference

    Ids = Sequence[int] | Callable[[], Sequence[int]]

NO_LIMIT = 1 << 30


class Model:
    """A bundle, opened for answering: on the NPU, else on the CPU.

    Owns a worker process; closing or dropping this object ends it, and so does the end of the program. Any thread may
    call anything at any time. Answers are made one at a time; a call that needs the engine while one is made raises
    UsageError, or waits with `wait`. In a forked child the model starts a worker of its own; the parent's is not
    touched.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: Options | None = None,
        on_event: Callable[[Event], object] | None = None,
        *,
        load: bool = True,
    ) -> None:
        """Load tokenizer and model, the latter unless `load` is false. Blocks. `on_event` is called in whichever
        thread something happens; it must not raise, and not wait for an answer.

        Raises UsageError, BundleError, NpuError, EngineError, NoBackendError.
        """
        options = (options or Options()).check()
        self.bundle = bundle
        # A program may change its directory (daemons do), and load again after that.
        self._options = replace(options, librkllmrt=_absolute(options.librkllmrt))
        if options.context > bundle.manifest.context:
            raise UsageError(f"context {options.context} is over the model's {bundle.manifest.context}")
        self._on_event = on_event or (lambda event: None)
        path = bundle.tokenizer_file
        self._tokenizer = Tokenizer.open(path) if path else None
        self._ear = Ear(self._tokenizer)
        self._noticed: set[Noticed] = set()
        self.last: Answer | None = None
        """The answer that ended last."""
        self._closed = False
        self._begin(self._options)
        if load:
            self.load()

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        options: Options | None = None,
        on_event: Callable[[Event], object] | None = None,
        **changes: Unpack[Changes],
    ) -> Self:
        """Open a bundle directory; any field of Options may be given by its name."""
        return cls(Bundle.open(bundle), (options or Options()).changed(changes), on_event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def backend(self) -> str:
        """npu or cpu: what answers now."""
        return self._backends.kind

    @property
    def degraded(self) -> Degraded | None:
        """Why the NPU does not answer, if it was asked, and when it is tried again."""
        return self._backends.degraded

    @property
    def remedies(self) -> tuple[Applied, ...]:
        """What was changed to make the NPU load, in order."""
        return self._backends.remedies

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self._backends.context

    @property
    def prompt_limit(self) -> int:
        """Tokens of the longest prompt that a conversation is made for: less than `context` where the NPU was seen to
        refuse one that was shorter than that."""
        return self._backends.prompt_limit

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, for looking at its memory."""
        return self._backends.pid

    @property
    def busy(self) -> bool:
        """Whether an answer is being made."""
        return self._turns.taken

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def has_tokenizer(self) -> bool:
        """False for an ids-only bundle."""
        return self._tokenizer is not None

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer. Raises UsageError for an ids-only bundle."""
        if self._tokenizer is None:
            raise UsageError(f"{self.bundle.directory}: an ids-only bundle has no tokenizer; give --ids")
        return self._tokenizer

    def load(self, wait: bool = True) -> None:
        """Have the model loaded, if it is not. Blocks. `close` from another thread ends it.

        Raises as the constructor.
        """
        self._alone(wait, self._backends.ensure)

    def prefer(self, backend: Preference, wait: bool = False) -> None:
        """Change the backend and load it; a refused NPU gets another try. Blocks.

        Raises NpuError, EngineError, NoBackendError; then the preference is what it was.
        """
        chosen = preference(backend)
        self._alone(wait, lambda stop: self._backends.prefer(chosen, stop))

    def check(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids of a prompt that can be answered. Raises PromptError."""
        given = _numbers(ids)
        vocab = self.bundle.manifest.vocab
        if not given:
            raise PromptError("the prompt is empty")
        bad = next((i for i in given if not 0 <= i < vocab), None)
        if bad is not None:
            raise PromptError(f"token id {shown(bad)} is outside the vocabulary of {vocab}")
        self.check_length(len(given))
        return given

    def check_length(self, tokens: int) -> None:
        """Raises PromptError if a prompt of so many tokens leaves no room for an answer."""
        if tokens >= self.context:
            raise PromptError(f"the prompt has {tokens} tokens, the context {self.context}; shorten it")

    def answer(
        self,
        ids: Ids,
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        wait: bool = False,
        on_end: Callable[[Answer], object] | None = None,
    ) -> Reply:
        """Continue a prompt: token ids, or a function that gives them when the answer's turn has come. `on_end` is
        called with the answer before the next one's turn.

        Raises UsageError and PromptError here, before anything is run; the reply raises the rest.
        """
        self._own_process()
        most = NO_LIMIT if max_tokens is None else whole("max_tokens", max_tokens, 1)
        chosen = None if sampling is None else self.sampling(sampling, None)
        given = ids if callable(ids) else self.check(ids)
        self._turns.check(wait)
        stop, slot = Stop(), list[Answer]()
        pieces = self._pieces(given, most, chosen, wait, stop, slot, on_end)
        return Reply(pieces, stop, slot)

    def rows(self, ids: Sequence[int], *, hidden: bool = False, wait: bool = False) -> NDArray[Any]:
        """float32 [tokens, vocabulary] of logits, or [tokens, hidden] after the last layer, on the NPU. Needs NumPy
        and librkllmrt 1.2.0. Blocks.

        Raises PromptError, NpuError, UnsupportedCall, EngineError (the CPU has none).
        """
        import numpy as np

        asked, o = self.check(ids), self._options
        request = RowsRequest(asked, hidden, o.adapter, o.adapter_scale)

        def read(stop: Stop) -> list[NDArray[Any]]:
            with closing(self._backends.rows(request, stop)) as parts:
                return [np.frombuffer(data, np.float32).reshape(count, -1) for data, count in parts]

        arrays = self._alone(wait, read)
        count = sum(map(len, arrays))
        if count != len(asked):
            raise EngineError(f"{count} rows for {len(asked)} tokens")
        return np.concatenate(arrays)

    def abort(self) -> None:
        """End what is in progress: an answer, also while a model is being loaded for it, or a load. Returns at
        once."""
        self._own_process()
        stop = self._current
        if stop is not None:
            stop.wish()

    def forget(self) -> None:
        """Drop the engine's prompt cache: the next answer reads its whole prompt. Returns at once."""
        self._own_process()
        self._backends.forget()

    def close(self) -> None:
        """End the worker. May be called twice. An answer in progress ends as one that was aborted; who waits for a
        turn gets UsageError, and so does every later call."""
        self._own_process()
        self._closed = True
        self._turns.close()
        self.abort()
        self._backends.close()

    def _begin(self, options: Options) -> None:
        """In this process for the first time."""
        self._process = os.getpid()
        self._turns = Turns()
        self._current: Stop | None = None
        self._backends = Backends(self.bundle, options, self._hear)

    def _hear(self, event: Event | Heard) -> None:
        """Hand on what happens; what the library says of single tokens is for the ear."""
        told = self._ear.hear(event) if isinstance(event, Heard) else event
        if isinstance(told, Noticed):
            if told in self._noticed:  # by a worker before
                return
            self._noticed.add(told)
        if told is not None:
            self._on_event(told)

    def _own_process(self) -> None:
        """A forked child begins anew: locks and workers are the parent's."""
        if self._process != os.getpid():
            self._begin(replace(self._options, backend=self._backends.preference))
            if self._closed:
                self._turns.close()

    def _alone(self, wait: bool, call: Callable[[Stop], Any]) -> Any:
        """Call in a turn of its own."""
        self._own_process()
        stop = Stop()
        try:
            with self._turns.turn(wait, stop), self._in_progress(stop):
                return call(stop)
        except Stopped:
            raise UsageError(CLOSED if self._closed else "it was aborted") from None
        except EngineError:
            if self._closed:
                raise UsageError(CLOSED) from None
            raise

    def _pieces(
        self,
        ids: Ids,
        most: int,
        sampling: Sampling | None,
        wait: bool,
        stop: Stop,
        slot: list[Answer],
        on_end: Callable[[Answer], object] | None,
    ) -> Generator[str, None, None]:
        """One answer. Holds the model and nothing of the reply."""

        def shorter() -> Request | None:
            return self._request(ids(), most, sampling) if callable(ids) else None

        process = os.getpid()
        try:
            with self._turns.turn(wait, stop), self._in_progress(stop):
                self._backends.ensure(stop)  # the context may be another now
                request = self._request(ids() if callable(ids) else ids, most, sampling)
                record = Record(self._tokenizer, len(request.ids))
                try:
                    with closing(self._backends.generate(request, stop, shorter)) as items:
                        for item in items:
                            if stop.wished and isinstance(item, wire.Tokens):  # nothing is handed out after that
                                break
                            if isinstance(item, wire.Tokens):
                                text = record.tokens(item.ids, self._backends.kind)
                            else:
                                text = record.finish(item)
                            if text:
                                yield text
                                self._turns.go_on()
                                if process != os.getpid():
                                    raise UsageError("this answer is the parent's: the process was forked meanwhile")
                finally:
                    if process == os.getpid():
                        self._end(record, slot, on_end)
        except Stopped:  # before it had begun
            self._end(Record(self._tokenizer), slot, on_end)
        except EngineError:
            if self._closed:
                raise UsageError(CLOSED) from None
            raise

    @contextmanager
    def _in_progress(self, stop: Stop) -> Generator[None, None, None]:
        """While this is open, `abort` and `close` end what is done with `stop`."""
        self._current = stop
        try:
            if self._closed:
                raise UsageError(CLOSED)
            yield
        finally:
            if self._current is stop:  # a forked child may have begun another
                self._current = None

    def _end(self, record: Record, slot: list[Answer], on_end: Callable[[Answer], object] | None) -> None:
        self.last = answer = record.answer(self._backends.kind, self._backends.degraded)
        slot.append(answer)
        if on_end is not None:
            on_end(answer)

    def _request(self, ids: Sequence[int], most: int, sampling: Sampling | None) -> Request:
        prompt, o = self.check(ids), self._options
        stop = self.bundle.manifest.eos
        asked = Request(prompt, most, stop, sampling or o.sampling, o.adapter, o.adapter_scale)
        return replace(asked, max_tokens=asked.room(self.context))

    def sampling(self, given: Sampling | None, temperature: float | None) -> Sampling:
        """What an answer is asked with: the one given, else the model's own; `temperature` replaces its own."""
        chosen = self._options.sampling if given is None else given
        if not isinstance(chosen, Sampling):
            raise UsageError(f"sampling is not a Sampling: {shown(chosen)}")
        return (chosen if temperature is None else replace(chosen, temperature=temperature)).check()


def _numbers(ids: Sequence[int]) -> tuple[int, ...]:
    """Ints, also of NumPy's kinds."""
    if isinstance(ids, (str, bytes)):
        raise UsageError(f"ids: {shown(ids)} is not a sequence of token ids")
    try:
        return tuple(map(operator.index, ids))
    except TypeError:
        raise UsageError(f"ids: {shown(ids)} is not a sequence of whole numbers") from None


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""
