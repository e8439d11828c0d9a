"""The NPU engine: a session of librkllmrt."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.engines.base import Engine, OnProgress, OnRows, OnToken
from rk_gemma_runtime.errors import EngineError, NpuError
from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Sampling, Setup
from rk_gemma_runtime.librkllm.library import find, load
from rk_gemma_runtime.librkllm.session import InferMode, InitOptions, RkSampling, RunOptions, Session, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.stop import Stop

log = logging.getLogger(__name__)


class NpuEngine(Engine):
    """Generates on the NPU. Before 1.3.0 the library takes sampling at init only: the model is loaded again
    when, and only when, a request's sampling differs from the one before."""

    def __init__(self, library: Library, setup: Setup) -> None:
        """Load the model. Blocks. Raises NpuError."""
        self._library, self._setup = library, setup
        self.on_reload: Callable[[str, bool], object] = lambda model, begins: None
        """Called with (model file, True) before the model is loaded again and with False after it; what it raises
        fails the request."""
        self._adapter = ""
        self._adapters: set[str] = set()
        self._sampling = _native(setup.sampling)
        self._session: Session | None = self._open()

    @classmethod
    def open(cls, setup: Setup) -> NpuEngine:
        """Find the library, load the model. Blocks. Raises NpuError."""
        return cls(load(find(setup.library or None)), setup)

    @property
    def version(self) -> str:
        """The library's version."""
        return self._library.version

    def generate(self, request: Request, on_token: OnToken, on_progress: OnProgress, stop: Stop) -> Finish:
        """The library does not tell how much of a prompt it has read: `on_progress` is not called."""
        sampling = _native(request.sampling)
        per_run = self._library.layout.sampling_per_run  # and max_new_tokens, which came with it
        run = _Run(request, on_token, self._setup.context, self._stop, per_run)
        perf = None
        try:
            with stop.told_to(lambda: run.end("abort")):
                session, reload_s = self._ready(sampling)
                adapter = self._choose_adapter(session, request.adapter, request.adapter_scale)
                options = RunOptions(sampling if per_run else None, run.limit if per_run else 0, adapter=adapter)
                if not run.ended:
                    perf = session.run(Tokens(request.ids), run.listener(), options).perf
        finally:
            run.settle()
        cached = len(request.ids) - perf.prefill_tokens if perf else 0
        return run.finish(max(0, cached), perf.prefill_ms / 1000 if perf else None, reload_s)

    def rows(self, request: RowsRequest, on_rows: OnRows) -> None:
        session, _ = self._ready(self._sampling)
        adapter = self._choose_adapter(session, request.adapter, request.adapter_scale)
        mode = InferMode.LAST_HIDDEN_LAYER if request.hidden else InferMode.LOGITS
        session.rows(Tokens(request.ids), mode, on_rows, RunOptions(adapter=adapter))

    def reset(self) -> None:
        if self._session is not None:
            self._session.clear()

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _open(self) -> Session:
        setup = self._setup
        session = Session(
            self._library,
            Path(setup.model),
            InitOptions(setup.context, self._sampling, base_domain=setup.domain),
        )
        self._adapter, self._adapters = "", set()
        if "rkllm_set_chat_template" in self._library.layout.functions:
            try:  # ids are the whole prompt; whether the library would put its template around them is not known
                session.set_chat_template()
            except NpuError as error:
                log.warning("the library's own chat template stays on: %s", error)
        return session

    def _ready(self, sampling: RkSampling) -> tuple[Session, float]:
        """The session for this sampling, and the seconds it took to load the model again."""
        fits = self._library.layout.sampling_per_run or sampling == self._sampling
        if self._session is not None and fits:
            return self._session, 0.0
        start = time.perf_counter()
        self.on_reload(self._setup.model, True)
        self.close()
        self._sampling = sampling
        self._session = session = self._open()
        self.on_reload(self._setup.model, False)
        took = time.perf_counter() - start
        log.warning("librkllmrt %s takes sampling at init: loaded the model again in %.1f s", self.version, took)
        return session, took

    def _choose_adapter(self, session: Session, name: str, scale: float) -> str:
        """The loaded name of an adapter. Its scale is fixed when it is loaded, so each scale has a name."""
        wanted = f"{name}@{scale!r}" if name else ""
        if wanted and wanted not in self._adapters:
            path = dict(self._setup.adapters).get(name)
            if path is None:
                raise EngineError(f"no adapter {name!r} here")
            session.load_adapter(wanted, Path(path), scale)
            self._adapters.add(wanted)
        if wanted != self._adapter:
            session.clear()  # keys and values of another adapter must not be taken for this one's
            self._adapter = wanted
        return wanted

    def _stop(self) -> None:
        """Have the library stop; nothing to do while the model is being loaded again."""
        session = self._session
        if session is not None:
            session.abort()


class _Run:
    """Counts one generation and ends it where the library does not: at an end id or at the limit."""

    def __init__(
        self, request: Request, on_token: OnToken, context: int, halt: Callable[[], None], limits_itself: bool
    ) -> None:
        self._request, self._forward, self._halt_library = request, on_token, halt
        self._stop = frozenset(request.stop)
        self.limit = request.room(context)
        self._cut = 0 if limits_itself else self.limit
        self._counted: Callable[[], int] = lambda: 0
        self._reason = ""
        self._start = time.perf_counter()
        self._first: float | None = None
        self._aborter: threading.Thread | None = None
        self._settling = threading.Lock()
        self._over = False

    @property
    def ended(self) -> bool:
        """True once we, not the library, have ended the run."""
        return bool(self._reason)

    def listener(self) -> Callable[[int, bytes], None]:
        """What the library's thread calls for a token. After the end, late tokens are dropped."""
        stop, cut, forward, clock = self._stop, self._cut, self._forward, time.perf_counter
        count = 0

        def on_token(token: int, text: bytes) -> None:
            nonlocal count
            if self._reason:
                self._halt_again()
            elif token in stop:
                self.end("stop")
            else:
                if not count:
                    self._first = clock()
                count += 1
                forward(token)
                if count == cut:
                    self.end("length")

        self._counted = lambda: count
        return on_token

    def end(self, reason: str) -> None:
        """Have the library stop. From any thread."""
        if self._reason:
            return
        self._reason = reason
        self._halt()

    def _halt(self) -> None:
        with self._settling:
            if not self._over:
                # Not from inside the callback: whether the library allows that is not known.
                self._aborter = threading.Thread(target=self._halt_library, daemon=True)
                self._aborter.start()

    def _halt_again(self) -> None:
        """Tokens still come: the abort was there before the library had begun, and was forgotten."""
        with self._settling:
            waiting = self._aborter is None or self._aborter.is_alive()
        if not waiting:
            self._halt()

    def settle(self) -> None:
        """After the run: wait for an abort on its way, so that it cannot hit the next run."""
        with self._settling:
            self._over, aborter = True, self._aborter
        if aborter is not None:
            aborter.join()

    def finish(self, cached: int, prefill_s: float | None, reload_s: float) -> Finish:
        """The account. A run that was not ended here was ended by the library: at the limit, or at an end id of its
        own."""
        now = time.perf_counter()
        first = self._first or now
        prefill = prefill_s if prefill_s is not None else first - self._start
        count = self._counted()
        reason = self._reason or ("length" if count >= self.limit else "stop")
        return Finish(reason, len(self._request.ids), cached, count, prefill, now - first, reload_s)


def _native(s: Sampling) -> RkSampling:
    greedy = s.greedy
    return RkSampling(
        1 if greedy else s.top_k,
        1.0 if greedy else s.top_p,  # it says nothing then, and must not load the model again
        0.0 if greedy else s.temperature,
        s.repeat_penalty,
        s.frequency_penalty,
        s.presence_penalty,
    )
