"""The NPU engine: a session of librkllmrt."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.engines.base import Engine, Notice, OnProgress, OnRows, OnToken
from rk_gemma_runtime.engines.generation import Generation
from rk_gemma_runtime.engines.statistics import Statistics
from rk_gemma_runtime.engines.tries import Tries
from rk_gemma_runtime.errors import EngineError, NpuError, NpuReason, UnsupportedCall
from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Sampling, Setup
from rk_gemma_runtime.librkllm.library import find, load
from rk_gemma_runtime.librkllm.rules import require_release
from rk_gemma_runtime.librkllm.session import InferMode, InitOptions, RkSampling, RunOptions, Session, Tokens
from rk_gemma_runtime.librkllm.waiting import turn_to_init

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.librkllm.session import Outcome, Perf
    from rk_gemma_runtime.stop import Stop

log = logging.getLogger(__name__)


class NpuEngine(Engine):
    """Generates on the NPU, with the sampling of the Setup where the library takes it at init only (before 1.3.0)."""

    def __init__(self, library: Library, setup: Setup) -> None:
        """Load the model, and have it make one token: only that proves a load. Blocks. Raises NpuError."""
        self._library, self._setup = library, setup
        self._notices: list[Notice] = []
        self._heard: list[tuple[int, bytes]] = []
        self._statistics = Statistics()
        self._adapter = ""
        self._adapters: set[str] = set()
        self._fresh = True  # nothing is in the cache
        self._halted = False  # the last run
        self._adds_bos = False
        options = InitOptions(setup.context, native(setup.sampling), base_domain=setup.domain)
        with turn_to_init(setup.device if os.path.exists(setup.device) else str(library.path)):
            self._session: Session = Session(library, Path(setup.model), options)
        try:
            self._switch_template_off()
            self._prove(setup.prove)
        except BaseException:
            self._session.close()
            raise

    @classmethod
    def open(cls, setup: Setup) -> NpuEngine:
        """Find the library, load the model. Blocks. Raises NpuError."""
        library = load(find(setup.library or None))
        require_release(library, setup.needs)
        return cls(library, setup)

    @property
    def version(self) -> str:
        """The library's version."""
        return self._library.version

    @property
    def sampling_per_run(self) -> bool:
        """Whether a request may have another sampling than the Setup; a limit of its own came with that."""
        return self._library.layout.sampling_per_run

    def generate(self, request: Request, on_token: OnToken, on_progress: OnProgress, stop: Stop) -> Finish:
        """The library does not tell how much of a prompt it has read: `on_progress` is not called."""
        if not self.sampling_per_run and native(request.sampling) != native(self._setup.sampling):
            raise EngineError(f"librkllmrt {self.version} takes sampling at init only")
        adapter = self._choose_adapter(request.adapter, request.adapter_scale)
        generation = self._generation(request, on_token)
        with stop.told_to(generation.abort):
            perf = self._account(generation, request, adapter)
        if generation.odd:
            log.warning("%d ids that the model does not have were passed over", generation.odd)
        cached = max(0, len(request.ids) - perf.prefill_tokens) if perf else 0
        return generation.finish(cached, perf.prefill_ms / 1000 if perf else None)

    def rows(self, request: RowsRequest, on_rows: OnRows) -> None:
        adapter = self._choose_adapter(request.adapter, request.adapter_scale)
        self.reset()  # else rows of a prefix that is kept may be missing (airockchip/rknn-llm 453)
        mode = InferMode.LAST_HIDDEN_LAYER if request.hidden else InferMode.LOGITS
        tokens, handed, tries = Tokens(self._sent(request.ids)), 0, Tries(self._halted)

        def hand(data: bytes, count: int) -> None:
            nonlocal handed
            handed += count
            on_rows(data, count)

        self._fresh = self._halted = False
        while not handed:
            try:
                self._session.rows(tokens, mode, hand, RunOptions(adapter=adapter))
            except NpuError as error:
                if handed or isinstance(error, UnsupportedCall) or not tries.after_refusal():
                    raise
                continue
            if not handed and not tries.after_nothing():
                raise NpuError("a run ended without a row, twice", NpuReason.RUN_FAILED)

    def reset(self) -> None:
        """What stays in spite of it is found by its ids alone, as in any run."""
        try:
            self._clear()
        except NpuError as error:
            log.warning("the cache could not be cleared: %s", error)

    def close(self) -> None:
        self._session.close()

    def take_notices(self) -> tuple[Notice, ...]:
        taken, self._notices = tuple(self._notices), []
        return taken

    def take_heard(self) -> tuple[tuple[int, bytes], ...]:
        taken, self._heard = tuple(self._heard), []
        return taken

    def _switch_template_off(self) -> None:
        if "rkllm_set_chat_template" in self._library.layout.functions:
            try:  # ids are the whole prompt; whether the library would put its template around them is not known
                self._session.set_chat_template()
            except NpuError as error:
                log.warning("the library's own chat template stays on: %s", error)

    def _prove(self, ids: tuple[int, ...]) -> None:
        """Make one token."""
        if not ids:
            return
        request = Request(ids, 1, sampling=self._setup.sampling)
        try:
            self._account(self._generation(request, lambda token: None), request, "")
        except NpuError as error:
            raise NpuError(f"the model was loaded and does not run: {error}", NpuReason.INIT_FAILED) from error
        self.reset()

    def _account(self, generation: Generation, request: Request, adapter: str) -> Perf | None:
        """Run, and what the library has counted, where that can be believed. Of an empty cache it should read what it
        was given; one position more is a <bos> that it puts in front."""
        outcome, sent, fresh = None, len(self._sent(request.ids)), self._fresh
        try:
            outcome = self._run(generation, request, adapter)
        finally:
            generation.settle()
            self._halted = generation.halted
            self._heard += generation.heard
        if outcome is None:
            return None
        perf = self._statistics.read(outcome.perf, sent, generation.count, self._halted)
        if perf is not None and fresh and perf.prefill_tokens == sent + 1 and not self._adds_bos:
            self._adds_bos = True
            text = f"librkllmrt {self.version} puts a <bos> before token ids; it is sent without one from now on"
            self._notices.append(("extra_bos", text))
        return perf

    def _generation(self, request: Request, on_token: OnToken) -> Generation:
        setup, halt = self._setup, self._session.abort
        return Generation(request, on_token, setup.context, setup.vocab, halt, self.sampling_per_run)

    def _run(self, generation: Generation, request: Request, adapter: str) -> Outcome | None:
        """Run until it has brought something; None if its end was wished before. A run that brings nothing is tried
        once more, and for a while after an abort, which may have left something behind."""
        per_run = self.sampling_per_run
        options = RunOptions(
            native(request.sampling) if per_run else None, generation.limit if per_run else 0, adapter=adapter
        )
        tokens, listener = Tokens(self._sent(request.ids)), generation.listener()
        self._fresh = False
        tries = Tries(self._halted)
        while not generation.ended:
            try:
                outcome = self._session.run(tokens, listener, options)
            except NpuError:
                if generation.ended:
                    return None
                if generation.count or not tries.after_refusal():
                    raise
                continue
            if generation.count or generation.ended or outcome.end_id in request.stop:
                return outcome
            if not tries.after_nothing():
                raise NpuError("a run ended without a token and without an end token, twice", NpuReason.RUN_FAILED)
        return None

    def _sent(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Without the <bos> that the library adds by itself."""
        drop = self._adds_bos and len(ids) > 1 and ids[0] == self._setup.prove[0]
        return tuple(ids[1:] if drop else ids)

    def _choose_adapter(self, name: str, scale: float) -> str:
        """The loaded name of an adapter. Its scale is fixed when it is loaded, so each scale has a name."""
        wanted = f"{name}@{scale!r}" if name else ""
        if wanted and wanted not in self._adapters:
            path = dict(self._setup.adapters).get(name)
            if path is None:
                raise EngineError(f"no adapter {name!r} here")
            self._session.load_adapter(wanted, Path(path), scale)
            self._adapters.add(wanted)
        if wanted != self._adapter:
            self._clear()  # keys and values of another adapter must not be taken for this one's
            self._adapter = wanted
        return wanted

    def _clear(self) -> None:
        if not self._fresh:  # an empty cache may refuse that
            self._session.clear()
            self._fresh = True


def native(sampling: Sampling) -> RkSampling:
    """As the library takes it."""
    s = sampling.plain()
    return RkSampling(s.top_k, s.top_p, s.temperature, s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
