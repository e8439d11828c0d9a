"""Which backend answers: the NPU first where it may, the CPU when it refuses or breaks, mid-answer if need be."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from rk_gemma_runtime import wire
from rk_gemma_runtime.answer import Degraded
from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.engines.base import Finish, Sampling
from rk_gemma_runtime.errors import (
    EngineError,
    NoBackendError,
    NpuError,
    NpuReason,
    RkGemmaError,
    UsageError,
    WorkerDied,
    WorkerHung,
)
from rk_gemma_runtime.loading import Applied, NpuLoader, cause_of
from rk_gemma_runtime.supervisor import Backend, Limits, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.engines.base import Request

Preference = Literal["auto", "npu", "cpu"]
PREFERENCES = ("auto", "npu", "cpu")
# After this many breakdowns in the middle of an answer the NPU is left alone.
BREAKDOWNS = 3
CPU_ADVICE = "run with --debug to see every line of the library"


@dataclass(frozen=True)
class Options:
    """How to open the backends. `context` and `threads` 0: the bundle's, and as many as there are cores (the four
    big ones of an RK3588 at most). `library`: an explicit librkllmrt.so, or "" to search. `sampling` of every answer
    that asks for no other; before 1.3.0 another one loads the NPU's model again. `adapter`: a LoRA adapter of the
    bundle, or "". `domain`: first IOMMU domain, 0 to 15, for a board that runs another model in 0. `force`: load on
    the NPU even where the plan says no. `shrink`: a smaller context may be used where the asked one does not fit.
    `board`: plan for this one, None is the one this runs on."""

    prefer: Preference = "auto"
    library: str = ""
    context: int = 0
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str = ""
    adapter_scale: float = 1.0
    domain: int = 0
    force: bool = False
    shrink: bool = False
    board: Board | None = None


class Backends:
    """The one backend in use, and the rules for leaving it. Not thread-safe, except `abort`."""

    def __init__(
        self,
        bundle: Bundle,
        options: Options,
        on_notice: Callable[[Degraded], None],
        on_remedy: Callable[[Applied], None] = lambda applied: None,
    ) -> None:
        """Loads nothing yet. `on_notice` hears of every degradation when it happens, `on_remedy` of what was changed
        to make the NPU load. Raises BundleError, UsageError."""
        if options.adapter:
            bundle.adapter(options.adapter)
        if not 0 <= options.domain < DOMAINS:
            raise UsageError(f"IOMMU domain {options.domain} is none of 0 to {DOMAINS - 1}")
        self._bundle, self._options, self._on_notice = bundle, options, on_notice
        self._prefer: Preference = options.prefer
        self._backend: Backend | None = None
        self._breakdowns = 0
        self._stopped = False
        self._refused: Degraded | None = None
        self.degraded: Degraded | None = None
        o = options
        most = bundle.manifest.npu.max_context if bundle.manifest.npu else self._whole_context
        context = min(self._whole_context, most)
        self._npu = NpuLoader(bundle, context, o.domain, o.board, o.force, o.shrink, on_remedy)

    @property
    def remedies(self) -> tuple[Applied, ...]:
        """What was changed to make the NPU load, in order."""
        return tuple(self._npu.applied)

    @property
    def kind(self) -> str:
        """npu or cpu: what answers now."""
        return self._backend.source.kind if self._backend else self._first_kind()

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._backend.pid if self._backend else None

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        if self._backend is not None:
            return self._backend.source.context
        return self._npu.context if self._first_kind() == "npu" else self._whole_context

    @property
    def _whole_context(self) -> int:
        return self._options.context or self._bundle.manifest.context

    def prefer(self, preference: Preference) -> None:
        """Change the preference and load; a refused NPU gets another try. Blocks.

        Raises as `ensure`; then the preference is what it was.
        """
        before = self._prefer, self._refused, self._breakdowns
        self._prefer, self._refused, self._breakdowns = preference, None, 0
        try:
            self.ensure()
        except RkGemmaError:
            self._prefer, self._refused, self._breakdowns = before
            raise

    def ensure(self) -> Backend:
        """The backend, loaded. Blocks. Raises NpuError, EngineError, NoBackendError."""
        wanted = self._first_kind()
        backend = self._backend
        if backend is not None and (backend.source.kind != wanted or not backend.alive):
            self._drop()  # the CPU took over in the middle of an answer, or a hung worker had to be killed
        self.degraded = self._refused
        if self._backend is None:
            self._backend = self._open(wanted)
        return self._backend

    def generate(self, request: Request) -> Iterator[wire.Tokens | Finish]:
        """Generate; in `auto`, a breakdown of the NPU is followed by the CPU, with the tokens so far kept."""
        ids: list[int] = []
        left = request
        self._stopped = False
        backend = self.ensure()
        while True:
            if self._stopped:  # while a model was loading
                yield Finish("abort", len(request.ids), 0, len(ids), 0.0, 0.0)
                return
            try:
                for item in backend.generate(left):
                    if isinstance(item, wire.Tokens):
                        ids += item.ids
                    yield item
                return
            except (WorkerDied, WorkerHung, NpuError) as error:
                backend = self._replace(error)
                rest = request.max_tokens - len(ids)
                if rest <= 0:  # it broke after the last token
                    yield Finish("length", len(request.ids), 0, len(ids), 0.0, 0.0)
                    return
                left = replace(request, ids=(*request.ids, *ids), max_tokens=rest)

    def abort(self) -> None:
        """Stop the answer in progress. From any thread."""
        self._stopped = True
        backend = self._backend
        if backend is not None:
            backend.abort()

    def reset(self) -> None:
        """Forget cached prompts."""
        if self._backend is not None:
            self._backend.reset()

    def close(self) -> None:
        """End the worker. May be called twice."""
        self._drop()

    def _drop(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _first_kind(self) -> str:
        if self._prefer == "auto":
            return "npu" if self._bundle.npu_file is not None and self._refused is None else "cpu"
        return self._prefer

    def _open(self, kind: str) -> Backend:
        try:
            if kind == "npu" and self._bundle.npu_file is not None:
                return self._npu.open(lambda *where: Backend(self._source(kind, *where), self._options.limits))
            return Backend(self._source(kind), self._options.limits)
        except EngineError as error:
            if kind == "cpu" or self._prefer != "auto":
                raise
            self._refused = describe(error)
            return self._fall_back(self._refused)

    def _replace(self, error: EngineError) -> Backend:
        """The worker in use is lost: raise if nobody can take over, else count it, say so, and go to the CPU."""
        kind = self.kind
        self._drop()
        if kind == "cpu" or self._prefer != "auto" or self._bundle.cpu_file is None:
            raise error
        self._breakdowns += 1
        degraded = describe(error)
        if self._breakdowns == BREAKDOWNS:
            self._refused = degraded
        self._backend = backend = self._fall_back(degraded)
        return backend

    def _fall_back(self, degraded: Degraded) -> Backend:
        try:
            backend = Backend(self._source("cpu"), self._options.limits)
        except EngineError as error:
            raise NoBackendError(f"nothing can answer; NPU: {degraded.message}; CPU: {error}") from error
        self.degraded = degraded
        self._on_notice(degraded)
        return backend

    def _source(self, kind: str, context: int = 0, domain: int = 0, board: Board | None = None) -> Source:
        path = self._bundle.npu_file if kind == "npu" else self._bundle.cpu_file
        if path is None and kind == "npu":
            raise NpuError(f"{self._bundle.directory}: the bundle has no NPU weights", NpuReason.NO_WEIGHTS)
        if path is None:
            raise EngineError(f"{self._bundle.directory}: the bundle has no CPU weights")
        o = self._options
        room = context or self._whole_context
        return Source(kind, path, room, self._threads(), o.library, o.sampling, domain, self._adapters(kind), board)

    def _adapters(self, kind: str) -> tuple[tuple[str, str], ...]:
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

    def _threads(self) -> int:
        return self._options.threads or min(4, os.cpu_count() or 1)


def describe(error: EngineError) -> Degraded:
    """The cause, the line that quotes the library, and the remedy: the rule book's where it knows them."""
    tree = error.diagnosis.tree() if error.diagnosis else None
    if isinstance(error, NpuError):
        return Degraded(cause_of(error), str(error), error.remedy, tree)
    kind = "hang" if isinstance(error, WorkerHung) else "crash" if isinstance(error, WorkerDied) else "other"
    remedy = error.named.remedy if error.named else CPU_ADVICE
    return Degraded(cause_of(error) or kind, str(error), remedy, tree)
