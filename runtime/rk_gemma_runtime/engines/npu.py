"""The NPU engine: a session of librkllmrt."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rk_gemma_runtime.engines.base import Engine, Finish, OnLogits, OnToken, Request, Sampling
from rk_gemma_runtime.librkllm.library import find, load
from rk_gemma_runtime.librkllm.session import RkSampling, Session

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.librkllm.library import Library


class NpuEngine(Engine):
    """Generates on the NPU. Before 1.3.0 the library takes sampling at init only: the model is loaded again
    when, and only when, a request's sampling differs from the one before."""

    def __init__(self, library: Library, model: Path, context: int) -> None:
        self._library, self._model, self._context = library, model, context
        self._sampling = _native(Sampling())
        self._session = Session(library, model, context, self._sampling)
        self._run: _Run | None = None

    @classmethod
    def open(cls, model: Path, context: int, librkllmrt: str | None) -> NpuEngine:
        """Find the library, load the model. Blocks. Raises NpuError."""
        return cls(load(find(librkllmrt)), model, context)

    @property
    def version(self) -> str:
        """The library's version."""
        return self._library.version

    def generate(self, request: Request, on_token: OnToken) -> Finish:
        sampling = _native(request.sampling)
        self._use(sampling)
        limits_itself = self._library.layout.sampling_per_run  # max_new_tokens per run came with it
        self._run = run = _Run(request, on_token, self._context, self._session, limits_itself)
        try:
            perf = self._session.run(request.ids, run.on_token, sampling, run.limit)
        finally:
            run.settle()
            self._run = None
        cached = len(request.ids) - perf.prefill_tokens if perf else 0
        return run.finish(max(0, cached), perf.prefill_ms / 1000 if perf else None)

    def logits(self, ids: tuple[int, ...], on_rows: OnLogits) -> None:
        self._session.logits(ids, on_rows)

    def abort(self) -> None:
        run = self._run
        if run is not None:
            run.end("abort")

    def reset(self) -> None:
        self._session.clear()

    def close(self) -> None:
        self._session.close()

    def _use(self, sampling: RkSampling) -> None:
        if self._library.layout.sampling_per_run or sampling == self._sampling:
            return
        self._session.close()
        self._session = Session(self._library, self._model, self._context, sampling)
        self._sampling = sampling


class _Run:
    """Counts one generation and ends it where the library does not: at an end id or at the limit."""

    def __init__(
        self, request: Request, on_token: OnToken, context: int, session: Session, limits_itself: bool
    ) -> None:
        self._request, self._forward, self._session = request, on_token, session
        self._stop = frozenset(request.stop)
        self._limits_itself = limits_itself
        self.limit = min(request.max_tokens, context - len(request.ids))
        self._count = 0
        self._reason = ""
        self._start = time.perf_counter()
        self._first: float | None = None
        self._aborter: threading.Thread | None = None

    def on_token(self, token: int, text: bytes) -> None:
        """From the library's thread. After the end, late tokens are dropped."""
        if self._first is None:
            self._first = time.perf_counter()
        if self._reason:
            self._halt_again()
            return
        if token in self._stop:
            self.end("stop")
            return
        self._count += 1
        self._forward(token, text)
        if self._count >= self.limit and not self._limits_itself:
            self.end("length")

    def end(self, reason: str) -> None:
        """Have the library stop. From any thread."""
        if self._reason:
            return
        self._reason = reason
        self._halt()

    def _halt(self) -> None:
        # Not from inside the callback: whether the library allows that is not known.
        self._aborter = threading.Thread(target=self._session.abort, daemon=True)
        self._aborter.start()

    def _halt_again(self) -> None:
        """Tokens still come: the abort was there before the library had begun, and was forgotten."""
        if self._aborter is None or not self._aborter.is_alive():
            self._halt()

    def settle(self) -> None:
        """After the run: wait for an abort on its way, so that it cannot hit the next run."""
        if self._aborter is not None:
            self._aborter.join()

    def finish(self, cached: int, prefill_s: float | None) -> Finish:
        """The account. Where nobody ended it, it was the library: at the limit, or at an end id of its own."""
        now = time.perf_counter()
        first = self._first or now
        prefill = prefill_s if prefill_s is not None else first - self._start
        reason = self._reason or ("length" if self._count >= self.limit else "stop")
        return Finish(reason, len(self._request.ids), cached, self._count, prefill, now - first)


def _native(s: Sampling) -> RkSampling:
    greedy = s.temperature <= 0
    return RkSampling(
        1 if greedy else s.top_k,
        s.top_p,
        0.0 if greedy else s.temperature,
        s.repeat_penalty,
        s.frequency_penalty,
        s.presence_penalty,
    )
