"""Which backend answers: the NPU first where it may, the CPU when it refuses or breaks, mid-answer if need be."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rk_gemma_runtime import wire
from rk_gemma_runtime.breaker import Breaker, describe
from rk_gemma_runtime.errors import (
    EngineError,
    NoBackendError,
    NpuError,
    NpuReason,
    WeightsError,
    WireError,
    WorkerDied,
    WorkerHung,
)
from rk_gemma_runtime.events import Degraded, Noticed, Recovered
from rk_gemma_runtime.jobs import Finish, Request, Setup
from rk_gemma_runtime.recovery import Recovery
from rk_gemma_runtime.stop import Stop, Stopped
from rk_gemma_runtime.supervisor import Backend, Source, Spare

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.events import Applied, Event, Heard
    from rk_gemma_runtime.jobs import RowsRequest
    from rk_gemma_runtime.loading import NpuLoader
    from rk_gemma_runtime.options import Options, Preference

    Kind = Literal["npu", "cpu"]

NO_LIMIT = 1 << 30
LOST = (WorkerDied, WorkerHung, WireError)


class Backends:
    """The one backend in use, and the rules for leaving it. One thread at a time, except
    `forget` and `close`."""

    def __init__(self, bundle: Bundle, options: Options, on_event: Callable[[Event | Heard], object]) -> None:
        """Loads nothing yet. Raises BundleError for an unknown adapter."""
        if options.adapter:
            bundle.adapter(options.adapter)
        self._bundle, self._options, self._on_event = bundle, options, on_event
        self._prefer: Preference = options.backend
        self._backend: Backend | None = None
        self._standby: Backend | None = None  # the NPU, loaded beside the CPU that answers
        self._wishes_to_forget = self._forgotten = 0
        self._prompt_limit = NO_LIMIT
        self._closed = False
        self.degraded: Degraded | None = None
        self._breaker = Breaker(options.limits)
        self._lock = threading.RLock()  # of the breaker and the standby, which recovery's thread also changes
        self._opening = threading.RLock()  # held while a worker is started for an answer
        self._recovery = Recovery(self._try_again)
        self._loader: NpuLoader | None = None

    @property
    def preference(self) -> Preference:
        """What was asked for."""
        return self._prefer

    @property
    def remedies(self) -> tuple[Applied, ...]:
        """What was changed to make the NPU load, in order."""
        return tuple(self._loader.applied) if self._loader else ()

    @property
    def kind(self) -> Kind:
        """npu or cpu: what answers now."""
        backend = self._backend
        return backend.source.kind if backend else self._first_kind()

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        backend = self._backend
        return backend.pid if backend else None

    @property
    def prompt_limit(self) -> int:
        """Tokens of the longest prompt that has a chance here: the NPU may refuse some for which the context has
        room."""
        return min(self.context, self._prompt_limit) if self.kind == "npu" else self.context

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        backend = self._backend
        return backend.source.setup.context if backend else self._context(self._first_kind())

    def prefer(self, preference: Preference, stop: Stop) -> None:
        """Change the preference and load; a refused NPU gets another try. Blocks.

        Raises as `ensure`; then the preference is what it was.
        """
        self._recovery.call_off()
        before, refused, degraded = self._prefer, self._breaker.refused, self.degraded
        self._prefer = preference
        self._breaker.close()
        try:
            self.ensure(stop)
        except BaseException:
            self._prefer, self._breaker.refused, self.degraded = before, refused, degraded
            self._schedule()
            raise

    def ensure(self, stop: Stop) -> Backend:
        """The backend, loaded and with nothing to do. Blocks.

        Raises NpuError, EngineError, NoBackendError; WeightsError; Stopped.
        """
        self._take_standby()
        wanted = self._first_kind()
        backend = self._backend
        if backend is not None and (backend.source.kind != wanted or not _idle(backend, stop)):
            self._drop()  # the CPU took over in the middle of an answer, or a hung worker had to be killed
        self.degraded = self._breaker.refused
        return self._backend or self._use(lambda: self._open(wanted, stop))

    def generate(
        self, request: Request, stop: Stop, shorter: Callable[[], Request | None] = lambda: None
    ) -> Generator[wire.Tokens | Finish, None, None]:
        """Generate; in `auto`, a breakdown of the NPU is followed by the CPU, with the tokens so far kept. Ends with
        an abort soon after `stop` is wished, whatever is going on. `shorter`: the same request with a prompt within
        `prompt_limit`, where there is one. Raises as `ensure`."""
        ids: list[int] = []
        try:
            self.ensure(stop)
            left = request
            while True:
                try:
                    for item in self._ready(stop).generate(left, stop):
                        if isinstance(item, wire.Tokens):
                            ids += item.ids
                        yield item
                    return
                except (*LOST, NpuError) as error:
                    if stop.wished or self._closed:  # the rest is not wanted
                        raise Stopped from error
                    at_fault = not ids and self._is_at_fault(error, left, stop)
                    other = shorter() if at_fault and self._learn_limit(len(left.ids)) else None
                    if other is not None and len(other.ids) < len(left.ids):
                        left = request = other
                        continue
                    rest = request.max_tokens - len(ids)
                    if rest <= 0:  # it broke after the last token
                        yield Finish("length", len(request.ids), 0, len(ids), 0.0, 0.0)
                        return
                    self._replace(error, at_fault, stop)
                    left = replace(request, ids=(*request.ids, *ids), max_tokens=rest)
        except Stopped:
            yield Finish("abort", len(request.ids), 0, len(ids), 0.0, 0.0)

    def rows(self, request: RowsRequest, stop: Stop) -> Generator[tuple[bytes, int], None, None]:
        """(float32 bytes, rows) parts. Raises as `ensure`, UnsupportedCall."""
        self.ensure(stop)
        return self._ready(stop).rows(request, stop)

    def forget(self) -> None:
        """Have the next job find no cached prompt. From any thread."""
        self._wishes_to_forget += 1

    def close(self) -> None:
        """End the workers. From any thread, twice too. What is being done with them ends; a load in progress does
        once its `stop` is wished, and is waited for."""
        self._closed = True
        self._recovery.call_off()
        with self._opening:
            self._drop()
            with self._lock:
                standby, self._standby = self._standby, None
            if standby is not None:
                standby.close()

    def _ready(self, stop: Stop) -> Backend:
        """The backend in use, without cached prompts where that was wished."""
        backend = self._backend
        if backend is None:  # it was closed meanwhile
            raise Stopped
        wishes = self._wishes_to_forget
        if wishes != self._forgotten:
            backend.reset(stop)
            self._forgotten = wishes
        return backend

    def _use(self, start: Callable[[], Backend]) -> Backend:
        """Start a worker and answer with it; one that was started while `close` waits is ended at once."""
        with self._opening:
            if self._closed:
                raise Stopped
            backend = start()
            if self._closed:
                backend.close()
                raise Stopped
            self._backend = backend
            return backend

    def _drop(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _first_kind(self) -> Kind:
        if self._prefer == "auto":
            tried = self._breaker.refused is None or self._bundle.cpu_file is None  # where nothing else can answer
            return "npu" if self._bundle.npu_file is not None and tried else "cpu"
        return self._prefer

    def _open(self, kind: Kind, stop: Stop) -> Backend:
        try:
            return self._open_npu(stop) if kind == "npu" else self._start(self._source("cpu"), stop)
        except (EngineError, WeightsError) as error:
            if kind == "cpu" or self._prefer != "auto":
                raise
            if isinstance(error, WeightsError) and self._bundle.cpu_file is None:  # that says more than both together
                raise
            with self._lock:
                degraded = self._breaker.refuse(error)
            self._schedule()
            return self._fall_back(degraded, stop)

    def _open_npu(self, stop: Stop) -> Backend:
        with Spare() as spare:  # it starts while the plan is made
            if self._loader is None:
                from rk_gemma_runtime.loading import NpuLoader  # late: the memory model is not for a CPU's answer

                o = self._options
                self._loader = NpuLoader(self._bundle, o.board, o.force, o.shrink, self._on_event)
            return self._loader.open(self._source("npu"), lambda source: self._start(source, stop, spare))

    def _start(self, source: Source, stop: Stop, spare: Spare | None = None) -> Backend:
        return Backend(source, self._options.limits, stop, self._on_event, spare)

    def _is_at_fault(self, error: EngineError, request: Request, stop: Stop) -> bool:
        """Whether the request is, and not the engine, which had not handed out a token of it."""
        backend = self._backend
        return backend is not None and _still_works(backend, error, request, stop)

    def _learn_limit(self, tokens: int) -> bool:
        """A prompt of so many tokens was refused. Near the context that tells how long one may be here."""
        context = self.context
        if self.kind != "npu" or 4 * tokens < 3 * context:
            return False
        self._prompt_limit = min(self._prompt_limit, tokens - 1)
        text = f"librkllmrt refuses a prompt of {tokens} tokens in a context of {context}"
        self._on_event(Noticed("prompt_margin", f"{text}: conversations are kept shorter"))
        return True

    def _replace(self, error: EngineError, fault_of_request: bool, stop: Stop) -> None:
        """The NPU has failed in an answer: raise if nobody can take over, else say so and go to the CPU."""
        backend = self._backend
        stop.check()
        if self.kind == "cpu" or self._prefer != "auto" or self._bundle.cpu_file is None:
            if not fault_of_request:
                self._drop()
            raise error
        if fault_of_request:  # the next one is for the NPU again
            self._backend, degraded = None, describe(error)
            with self._lock:
                self._standby = backend
        else:
            self._drop()
            with self._lock:
                degraded = self._breaker.break_down(error)
            self._schedule()
        self._use(lambda: self._fall_back(degraded, stop))

    def _fall_back(self, degraded: Degraded, stop: Stop) -> Backend:
        try:
            backend = self._start(self._source("cpu"), stop)
        except EngineError as error:
            raise NoBackendError(f"nothing can answer; NPU: {degraded.message}; CPU: {error}") from error
        self.degraded = degraded
        self._on_event(degraded)
        return backend

    def _schedule(self, by: Stop | None = None) -> None:
        """Have a refused NPU tried again when its pause is over. `by`: the try that has failed."""
        pause = self._breaker.pause_s
        if pause is not None and not self._closed and self._prefer == "auto":
            self._recovery.schedule(pause, by)

    def _try_again(self, stop: Stop) -> Callable[[], object] | None:
        """In recovery's thread, while the CPU answers: load the NPU, and leave it where the next answer finds it."""
        began = time.monotonic()
        try:
            backend = self._open_npu(stop)
        except Stopped:
            return None
        except (EngineError, WeightsError) as error:
            with self._lock:
                if not stop.wished:
                    self.degraded = self._breaker.refuse(error)
            self._schedule(stop)
            return None
        with self._lock:
            if not stop.wished:
                self._standby = backend
                return lambda: self._on_event(Recovered(time.monotonic() - began))
        backend.close()
        return None

    def _take_standby(self) -> None:
        """If the NPU was loaded meanwhile, it answers from now on."""
        with self._lock:
            standby, self._standby = self._standby, None
            if standby is not None:
                self._breaker.close()  # one that has died meanwhile is loaded by this answer
        if standby is None:
            return
        if standby.alive and self._prefer != "cpu":
            self._drop()
            self._use(lambda: standby)
        else:
            standby.close()

    def _source(self, kind: Kind) -> Source:
        path = self._bundle.npu_file if kind == "npu" else self._bundle.cpu_file
        if path is None and kind == "npu":
            raise NpuError(f"{self._bundle.directory}: the bundle has no NPU weights", NpuReason.NO_WEIGHTS)
        if path is None:
            raise EngineError(f"{self._bundle.directory}: the bundle has no CPU weights")
        o, m = self._options, self._bundle.manifest
        setup = Setup(
            model=str(path),
            context=self._context(kind),
            threads=o.threads or min(4, os.cpu_count() or 1),
            library=o.librkllmrt,
            sampling=o.sampling,
            domain=o.domain,
            adapters=self._adapters(kind),
            vocab=m.vocab,
            prove=(m.bos, m.vocab // 2) if kind == "npu" else (),
        )
        return Source(kind, setup)

    def _context(self, kind: Kind) -> int:
        """What was asked for or the bundle's; on the NPU no more than its weights were made for. The plan refuses a
        longer one that was asked for and may not be made smaller."""
        npu, o = self._bundle.manifest.npu, self._options
        whole = o.context or self._bundle.manifest.context
        limited = kind == "npu" and npu is not None and (o.shrink or not o.context)
        return min(whole, npu.max_context) if limited and npu else whole

    def _adapters(self, kind: Kind) -> tuple[tuple[str, str], ...]:
        """The adapter in use, for this backend. An answer without it would be another model's, so it must be
        there."""
        name = self._options.adapter
        if not name:
            return ()
        adapter = self._bundle.adapter(name)
        file = adapter.npu if kind == "npu" else adapter.cpu
        if file is not None:
            return ((name, str(self._bundle.path(file))),)
        text = f"{self._bundle.directory}: adapter {name} has no {kind.upper()} file"
        raise NpuError(text, NpuReason.NO_WEIGHTS) if kind == "npu" else EngineError(text)


def _idle(backend: Backend, stop: Stop) -> bool:
    """Whether it can take a job, once the one that was given up has ended."""
    try:
        backend.settle(stop)
    except LOST:
        return False
    return backend.alive


def _still_works(backend: Backend, error: EngineError, request: Request, stop: Stop) -> bool:
    """Whether the NPU answers another prompt: then it has refused this one, and is not broken."""
    if not isinstance(error, NpuError) or not backend.alive:
        return False
    try:
        probe = replace(request, ids=request.ids[:1], max_tokens=1, stop=())
        return any(isinstance(item, wire.Tokens) for item in backend.generate(probe, stop))
    except EngineError:
        return False
