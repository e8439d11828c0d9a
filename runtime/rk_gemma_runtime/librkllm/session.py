"""A handle of librkllmrt: init, run, abort, clear, destroy, as Python methods.

The layout's differences end here: callers see token ids, bytes and numbers. Not thread-safe, except `abort`.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import NpuError, NpuReason
from rk_gemma_runtime.librkllm.abi.layout import CallState, Handle, InferMode, InputType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rk_gemma_runtime.librkllm.library import Library

    OnToken = Callable[[int, bytes], object]

log = logging.getLogger(__name__)
LOGITS_BYTES = 16 << 20


@dataclass(frozen=True)
class RkSampling:
    """Sampling as the library takes it. temperature 0 is greedy; penalties that do nothing: 1, 0, 0."""

    top_k: int
    top_p: float
    temperature: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float


@dataclass(frozen=True)
class Perf:
    """What the library counted in a run; None where its layout has no statistics."""

    prefill_tokens: int
    prefill_ms: float
    generate_ms: float


class Session:
    """One initialised model. `close` may be called twice; nothing else after it."""

    def __init__(
        self, library: Library, model: Path, context: int, sampling: RkSampling, base_domain: int = 0
    ) -> None:
        """Load the model; blocks for seconds to minutes. Raises NpuError; init is then undone."""
        self._lib, self._layout, self._cdll = library, library.layout, library.cdll
        self._on_token: OnToken | None = None
        self._on_logits: Callable[[bytes, int], object] | None = None
        self._perf: Perf | None = None
        self._failed = False
        self._handle = Handle()
        # Kept for the life of the handle: the library calls them from its own threads.
        self._callback = self._layout.result_callback(self._guarded)
        self._callback_argument = self._make_callback_argument()
        self._param = self._make_param(model, context, sampling, base_domain)
        code = self._cdll.rkllm_init(ctypes.byref(self._handle), ctypes.byref(self._param), self._callback_argument)
        flush_stdio()
        if code != 0 or not self._handle:  # some releases return 0 with a null handle
            self._handle = Handle()
            raise NpuError(f"rkllm_init failed (returned {code})", NpuReason.INIT_FAILED)

    def run(self, ids: Sequence[int], on_token: OnToken, sampling: RkSampling, max_new_tokens: int) -> Perf | None:
        """Generate; `on_token` is called for each token from the library's thread. Blocks. Raises NpuError."""
        infer = self._make_infer(InferMode.GENERATE)
        if self._layout.sampling_per_run:
            own = self._layout.structs["RKLLMSamplingParam"](**_fields(sampling), mirostat_tau=5.0, mirostat_eta=0.1)
            infer.sampling_params = ctypes.pointer(own)
            infer.max_new_tokens = max_new_tokens
        self._on_token = on_token
        try:
            self._call(ids, infer)
        finally:
            self._on_token = None
        return self._perf

    def logits(self, ids: Sequence[int], on_rows: Callable[[bytes, int], object]) -> None:
        """Logits of every position: `on_rows(float32 bytes, rows)`, perhaps in parts. Raises NpuError."""
        if not self._layout.has_logits:
            raise NpuError(
                f"librkllmrt {self._lib.version} has no logits mode; it came with 1.2.0", NpuReason.RUN_FAILED
            )
        self._on_logits = on_rows
        try:
            self._call(ids, self._make_infer(InferMode.LOGITS))
        finally:
            self._on_logits = None

    def abort(self) -> None:
        """Ask the run in progress to stop. From any thread; returns at once."""
        if self._handle:
            self._cdll.rkllm_abort(self._handle)

    def clear(self) -> None:
        """Forget the conversation. Layouts before 1.2.0 keep none between runs."""
        if "rkllm_clear_kv_cache" in self._layout.functions:
            self._cdll.rkllm_clear_kv_cache(self._handle, 0, None, None)

    def close(self) -> None:
        """Destroy the handle."""
        handle, self._handle = self._handle, Handle()
        if handle:
            self._cdll.rkllm_destroy(handle)

    def _call(self, ids: Sequence[int], infer: Any) -> None:
        array = (ctypes.c_int32 * len(ids))(*ids)
        request = self._layout.structs["RKLLMInput"]()
        if hasattr(request, "role"):
            request.role = b"user"
        request.input_type = InputType.TOKEN
        request.token_input.input_ids = ctypes.cast(array, ctypes.POINTER(ctypes.c_int32))
        request.token_input.n_tokens = len(ids)
        self._perf, self._failed = None, False
        code = self._cdll.rkllm_run(self._handle, ctypes.byref(request), ctypes.byref(infer), None)
        flush_stdio()
        if code != 0 or self._failed:
            raise NpuError(f"rkllm_run failed (returned {code})", NpuReason.RUN_FAILED)

    def _guarded(self, result: Any, userdata: object, state: int) -> int:
        """The result callback: never raises into C."""
        try:
            return self._on_result(result, state)
        except Exception:  # the edge to C
            log.exception("in the result callback")
            return 0

    def _on_result(self, result: Any, state: int) -> int:
        if state <= CallState.WAITING:  # WAITING: a token whose bytes come with the next
            if self._on_token is not None:
                content = result.contents
                self._on_token(content.token_id, content.text or b"")
            elif self._on_logits is not None:
                _hand_over(result.contents.logits, self._on_logits)
        elif state == CallState.ERROR:
            self._failed = True
        elif state == CallState.FINISH and self._layout.has_perf and result:
            perf = result.contents.perf
            self._perf = Perf(perf.prefill_tokens, perf.prefill_time_ms, perf.generate_time_ms)
        return 0

    def _make_callback_argument(self) -> Any:
        if not self._layout.init_takes_struct:
            return self._callback
        self._callback_struct = self._layout.structs["RKLLMCallback"](result_callback=self._callback)
        return ctypes.byref(self._callback_struct)

    def _make_param(self, model: Path, context: int, sampling: RkSampling, base_domain: int) -> Any:
        """From the library's defaults: zeroed memory would mean n_batch 0, its default is 1."""
        param = self._cdll.rkllm_createDefaultParam()
        param.model_path = os.fsencode(model)
        param.max_context_len = context
        param.max_new_tokens = -1
        param.skip_special_token = True
        param.is_async = False
        param.extend_param.base_domain_id = base_domain
        for name, value in _fields(sampling).items():
            setattr(param, name, value)
        return param

    def _make_infer(self, mode: InferMode) -> Any:
        infer = self._layout.structs["RKLLMInferParam"]()
        infer.mode = mode
        return infer


def flush_stdio() -> None:
    """Bring out what the library printed: into a pipe its stdout is block-buffered, and a crash would lose it."""
    ctypes.CDLL(None).fflush(None)


def _hand_over(part: Any, on_rows: Callable[[bytes, int], object]) -> None:
    """Copy logits out of the library's memory, some rows at a time: a vocabulary of 256,000 is 1 MB a row."""
    row = 4 * part.vocab_size
    address = ctypes.cast(part.logits, ctypes.c_void_p).value or 0
    step = max(1, LOGITS_BYTES // max(1, row))
    for first in range(0, part.num_tokens, step):
        count = min(step, part.num_tokens - first)
        on_rows(ctypes.string_at(address + first * row, count * row), count)


def _fields(sampling: RkSampling) -> dict[str, float]:
    return {name: getattr(sampling, name) for name in RkSampling.__dataclass_fields__}
