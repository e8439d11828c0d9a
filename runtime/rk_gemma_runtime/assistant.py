"""The public object: conversation in, pieces of text out."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime import wire
from rk_gemma_runtime.answer import Answer, Degraded
from rk_gemma_runtime.backends import PREFERENCES, Backends, Options
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.chat import Message, TextStream, Tokenizer, render
from rk_gemma_runtime.engines.base import Finish, Request, RowsRequest, Sampling
from rk_gemma_runtime.errors import EngineError, PromptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from rk_gemma_runtime.backends import Preference
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.loading import Applied

NO_LIMIT = 1 << 30


class Assistant:
    """A bundle, opened for answering: on the NPU, else on the CPU.

    Owns a worker process: close it (or use `with`). One answer at a time; not thread-safe, except `abort`.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: Options | None = None,
        on_notice: Callable[[Degraded], None] | None = None,
        on_remedy: Callable[[Applied], None] | None = None,
    ) -> None:
        """Load tokenizer and model. Blocks. Raises BundleError, NpuError, EngineError, NoBackendError."""
        self.bundle = bundle
        self.history: list[Message] = []
        self.last: Answer | None = None
        path = bundle.tokenizer_file
        self._tokenizer = Tokenizer.open(path) if path else None
        self._busy = False
        self._closed = False
        self._forgotten = 0
        self.just_forgot = False
        self._options = options = options or Options()
        self._backends = Backends(
            bundle, options, on_notice or (lambda degraded: None), on_remedy or (lambda applied: None)
        )
        asked = options.context
        if asked > bundle.manifest.context:
            raise UsageError(f"context {asked} is over the model's {bundle.manifest.context}")
        self._backends.ensure()

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        backend: Preference = "auto",
        librkllmrt: str = "",
        on_notice: Callable[[Degraded], None] | None = None,
        on_remedy: Callable[[Applied], None] | None = None,
        context: int = 0,
        threads: int = 0,
        sampling: Sampling | None = None,
        adapter: str = "",
        adapter_scale: float = 1.0,
        domain: int = 0,
        force: bool = False,
        shrink: bool = False,
        board: Board | None = None,
    ) -> Assistant:
        """Open a bundle directory. `backend` auto tries the NPU first; `context` 0 is the model's; the rest as in
        `backends.Options`.

        `on_notice` is called when an answer has to come from the CPU although the NPU was asked, `on_remedy` when
        something was changed to make the NPU load.
        """
        if backend not in PREFERENCES:
            raise UsageError(f"backend {backend!r} is none of {', '.join(PREFERENCES)}")
        options = Options(
            prefer=backend,
            library=librkllmrt,
            context=context,
            threads=threads,
            sampling=sampling or Sampling(),
            adapter=adapter,
            adapter_scale=adapter_scale,
            domain=domain,
            force=force,
            shrink=shrink,
            board=board,
        )
        return cls(Bundle.open(bundle), options, on_notice, on_remedy)

    def __enter__(self) -> Assistant:
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
        """Why the NPU does not answer, if it was asked."""
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
    def worker_pid(self) -> int | None:
        """Process id of the worker, for looking at its memory."""
        return self._backends.pid

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer. Raises UsageError for an ids-only bundle."""
        if self._tokenizer is None:
            raise UsageError(f"{self.bundle.directory}: an ids-only bundle has no tokenizer; give --ids")
        return self._tokenizer

    def prefer(self, backend: Preference) -> None:
        """Change the backend and load it; a refused NPU gets another try. Blocks.

        Raises NpuError, EngineError, NoBackendError; then the preference is what it was.
        """
        self._backends.prefer(backend)

    def chat(
        self,
        message: str | Sequence[Message | Mapping[str, object]],
        *,
        max_tokens: int = NO_LIMIT,
        temperature: float | None = None,
        sampling: Sampling | None = None,
    ) -> Iterator[str]:
        """Answer, piece by piece. A text goes on with `history` and is added to it with its answer (also with a
        part of it, if the iterator is closed early); a list of messages stands alone. Where the context is full the
        oldest exchanges are not sent (`just_forgot` is then true once); `history` keeps them.

        `last` holds the numbers afterwards. Raises PromptError, TemplateError, EngineError, WorkerDied.
        """
        chosen = self._sampling(sampling, temperature)
        self.last = None
        if not isinstance(message, (str, list, tuple)):
            raise UsageError("a message is a text or a list of messages")
        if not isinstance(message, str):
            prompt = render(message, self.tokenizer).ids
            yield from self._pieces(tuple(prompt), max_tokens, chosen)
            return
        if not message.strip():
            raise PromptError("the prompt is empty")
        turns = [*self.history, Message("user", message)]
        self._ready()
        try:
            yield from self._pieces(self._fit(turns, max_tokens), max_tokens, chosen)
        finally:
            answer = self.last
            if answer is not None and answer.text.strip():
                self.history = [*turns, Message("assistant", answer.text, answer.ids)]

    def generate(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int = NO_LIMIT,
        temperature: float | None = None,
        sampling: Sampling | None = None,
    ) -> Iterator[str]:
        """Continue token ids as they are, without a template; `last.ids` are the new ones."""
        yield from self._pieces(tuple(ids), max_tokens, self._sampling(sampling, temperature))

    def logits(self, ids: Sequence[int]) -> NDArray[Any]:
        """float32 [tokens, vocabulary]: what the NPU expects after each id. Needs NumPy and librkllmrt 1.2.0.

        Raises PromptError, NpuError, UnsupportedCall, EngineError (the CPU has none).
        """
        return self._rows(ids, hidden=False)

    def hidden_states(self, ids: Sequence[int]) -> NDArray[Any]:
        """float32 [tokens, hidden] after the last layer, on the NPU: text embeddings. Raises as `logits`."""
        return self._rows(ids, hidden=True)

    def reset(self, system: str = "") -> None:
        """Start a new conversation, with a system message if one is given."""
        self.history = [Message("system", system)] if system else []
        self._forgotten = 0

    def abort(self) -> None:
        """Stop the answer in progress; its iterator ends. From any thread."""
        self._backends.abort()

    def forget(self) -> None:
        """Drop the engine's prompt cache; the next answer prefills everything."""
        self._backends.reset()

    def close(self) -> None:
        """End the worker. May be called twice; nothing else after it."""
        self._closed = True
        self._backends.close()

    def _fit(self, turns: list[Message], max_tokens: int) -> tuple[int, ...]:
        """Ids of the conversation, without its oldest exchanges where there would be no room for an answer. The
        system message stays; so does the newest message, whatever its length."""
        first = 1 if turns[0].role == "system" else 0
        before = self._forgotten = min(self._forgotten, len(turns) - first - 1)
        room = min(max_tokens, self.context // 4)
        while True:
            ids = tuple(render([*turns[:first], *turns[first + self._forgotten :]], self.tokenizer).ids)
            if len(ids) + room <= self.context or first + self._forgotten + 2 >= len(turns):
                self.just_forgot = before == 0 < self._forgotten
                return ids
            self._forgotten += 2

    def _sampling(self, sampling: Sampling | None, temperature: float | None) -> Sampling:
        chosen = sampling or self._options.sampling
        return chosen if temperature is None else replace(chosen, temperature=temperature)

    def _check(self, ids: tuple[int, ...]) -> None:
        manifest = self.bundle.manifest
        if not ids:
            raise PromptError("the prompt is empty")
        if len(ids) >= self.context:
            raise PromptError(f"the prompt has {len(ids)} tokens, the context {self.context}; shorten it")
        bad = next((i for i in ids if not 0 <= i < manifest.vocab), None)
        if bad is not None:
            raise PromptError(f"token id {bad} is outside the vocabulary of {manifest.vocab}")

    def _rows(self, ids: Sequence[int], hidden: bool) -> NDArray[Any]:
        import numpy as np

        asked = tuple(ids)
        self._check(asked)
        with self._alone():
            o = self._options
            parts = self._backends.ensure().rows(RowsRequest(asked, hidden, o.adapter, o.adapter_scale))
            arrays = [np.frombuffer(data, np.float32).reshape(count, -1) for data, count in parts]
        count = sum(map(len, arrays))
        if count != len(asked):
            raise EngineError(f"{count} rows for {len(asked)} tokens")
        return np.concatenate(arrays)

    def _ready(self) -> None:
        """Load again what broke: the context may be another now."""
        if not (self._closed or self._busy):
            self._backends.ensure()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._closed:
            raise UsageError("this assistant is closed")
        if self._busy:
            raise UsageError("this assistant is answering already; one answer at a time")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _pieces(self, ids: tuple[int, ...], max_tokens: int, sampling: Sampling) -> Iterator[str]:
        if max_tokens < 1:
            raise UsageError("max_tokens must be at least 1")
        self._ready()
        self._check(ids)
        limit = min(max_tokens, self.context - len(ids))
        o = self._options
        request = Request(ids, limit, self.bundle.manifest.eos, sampling, o.adapter, o.adapter_scale)
        with self._alone():
            self.last = None
            record = _Record(self._tokenizer, len(ids))
            try:
                for item in self._backends.generate(request):
                    text = record.tokens(item.ids) if isinstance(item, wire.Tokens) else record.finish(item)
                    if text:
                        yield text
            finally:
                self.last = record.answer(self._backends.kind, self._backends.degraded)


class _Record:
    """Collects one answer."""

    def __init__(self, tokenizer: Tokenizer | None, prompt_tokens: int) -> None:
        self._tokenizer, self._prompt_tokens = tokenizer, prompt_tokens
        self._stream = TextStream()
        self._ids: list[int] = []
        self._text: list[str] = []
        self._start = time.perf_counter()
        self._first = self._latest = self._start
        self._finish: Finish | None = None

    def tokens(self, ids: tuple[int, ...]) -> str:
        self._latest = time.perf_counter()
        if not self._ids:
            self._first = self._latest
        tokenizer = self._tokenizer
        if tokenizer is None:  # an ids-only bundle: there is no text
            self._ids += ids
            return ""
        known = [token if token >= 0 else tokenizer.byte_id(-1 - token) for token in ids]
        self._ids += known
        return self._add(self._stream.feed(b"".join(map(tokenizer.piece_bytes, known))))

    def finish(self, finish: Finish) -> str:
        self._finish = finish
        return self._add(self._stream.finish())

    def answer(self, backend: str, degraded: Degraded | None) -> Answer:
        """The account; an answer that was cut off counts what came."""
        done = self._finish or Finish("abort", self._prompt_tokens, 0, len(self._ids), 0.0, 0.0)
        count = len(self._ids)
        return Answer(
            ids=tuple(self._ids),
            text="".join(self._text),
            backend=backend,
            finish_reason=done.reason,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=done.cached_tokens,
            new_tokens=count,
            ttft_s=self._first - self._start if count else 0.0,
            tokens_per_second=self._rate(),
            degraded=degraded,
            reload_s=done.reload_s,
        )

    def _rate(self) -> float:
        """Tokens per second after the first, by the engine's clock; by ours where the answer was cut off."""
        done = self._finish
        if done is not None and done.new_tokens > 1 and done.decode_s > 0:
            return (done.new_tokens - 1) / done.decode_s
        count, span = len(self._ids), self._latest - self._first
        return (count - 1) / span if count > 1 and span > 0 else 0.0

    def _add(self, text: str) -> str:
        if text:
            self._text.append(text)
        return text
