"""The life of one handle: init, runs, destroy. `session.py` has the calls a user makes."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import NpuError, NpuReason
from rk_gemma_runtime.librkllm.abi.layout import Handle, InferMode
from rk_gemma_runtime.librkllm.inputs import fill
from rk_gemma_runtime.librkllm.options import Outcome, RunOptions
from rk_gemma_runtime.librkllm.params import infer_param, init_param
from rk_gemma_runtime.librkllm.receiver import Receiver
from rk_gemma_runtime.librkllm.rules import require_symbol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rk_gemma_runtime.librkllm.inputs import Input
    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.librkllm.options import InitOptions
    from rk_gemma_runtime.librkllm.receiver import Listen, OnToken

POLL_S = 0.02


class OpenHandle:
    """One LLMHandle and its callback."""

    def __init__(self, library: Library, model: Path, options: InitOptions) -> None:
        """rkllm_init. Raises NpuError, UnsupportedCall; the handle is then gone."""
        self._lib, self._cdll = library, library.cdll
        self._handle = Handle()
        self._aborted = False
        param = init_param(library, model, options)
        self.receiver = receiver = Receiver.of(library, self._abort_soon)
        third = receiver.function if receiver.struct is None else ctypes.byref(receiver.struct)
        code = self._cdll.rkllm_init(ctypes.byref(self._handle), ctypes.byref(param), third)
        flush_stdio()
        if code != 0 or not self._handle:  # some releases return 0 with a null handle
            self._handle = Handle()
            receiver.retire(library)
            raise NpuError(f"rkllm_init failed (returned {code})", NpuReason.INIT_FAILED)
        # Headers before 1.3.0 say 0 = running, the maintainer says 1: what an idle handle answers settles it.
        self._idle = self._cdll.rkllm_is_running(self._handle)

    def call(self, symbol: str, *arguments: Any) -> None:
        """A call that returns 0 when it worked. Raises NpuError, UnsupportedCall."""
        require_symbol(self._lib, symbol)
        code = getattr(self._cdll, symbol)(self._handle, *arguments)
        flush_stdio()
        if code != 0:
            raise NpuError(f"{symbol} failed (returned {code})", NpuReason.RUN_FAILED)

    def run(
        self, items: Sequence[Input], mode: InferMode, options: RunOptions | None,
        *, listen: Listen | None = None, on_token: OnToken | None = None,
    ) -> Outcome:  # fmt: skip
        """rkllm_run. Blocks. Raises NpuError, and what the listener raised."""
        request, infer, kept = self._arguments(items, mode, options or RunOptions())
        self._aborted = False
        self.receiver.expect(listen, on_token)
        try:
            code = self._cdll.rkllm_run(self._handle, request, ctypes.byref(infer), None)
        finally:
            self.receiver.forget()
        del kept  # it had to live until here
        flush_stdio()
        return self.outcome(code)

    def start(self, item: Input, options: RunOptions | None, on_token: OnToken) -> AsyncRun:
        """rkllm_run_async, generating."""
        arguments = self._arguments([item], InferMode.GENERATE, options or RunOptions())
        self._aborted = False
        self.receiver.expect(on_token=on_token)
        code = self._cdll.rkllm_run_async(self._handle, arguments[0], ctypes.byref(arguments[1]), None)
        if code != 0:
            self.receiver.forget()
            raise NpuError(f"rkllm_run_async failed (returned {code})", NpuReason.RUN_FAILED)
        return AsyncRun(self, arguments)

    def outcome(self, code: int) -> Outcome:
        """What a run that has come back amounts to."""
        receiver = self.receiver
        if receiver.raised is not None:
            raise receiver.raised
        if (code != 0 or receiver.failed) and not self._aborted:  # a release may call its own obedience an error
            raise NpuError(f"rkllm_run failed (returned {code})", NpuReason.RUN_FAILED)
        return Outcome(receiver.ended.is_set() and not receiver.failed, receiver.paused, receiver.perf)

    def is_running(self) -> bool:
        """From any thread."""
        return bool(self._handle) and self._cdll.rkllm_is_running(self._handle) != self._idle

    def abort(self) -> None:
        """From any thread but the callback's."""
        if self._handle:
            self._aborted = True
            self._cdll.rkllm_abort(self._handle)

    def close(self) -> None:
        """rkllm_destroy; at most once."""
        handle, self._handle = self._handle, Handle()
        self.receiver.forget()
        if handle:
            self._cdll.rkllm_destroy(handle)
            flush_stdio()
            self.receiver.retire(self._lib)

    def _abort_soon(self) -> None:
        # Not from inside the callback: whether the library allows that is not known.
        threading.Thread(target=self.abort, daemon=True).start()

    def _arguments(self, items: Sequence[Input], mode: InferMode, options: RunOptions) -> tuple[Any, Any, list[Any]]:
        """RKLLMInput[n], RKLLMInferParam, and what they point to."""
        request = (self._lib.layout.structs["RKLLMInput"] * len(items))()
        kept = [fill(self._lib, part, item) for part, item in zip(request, items, strict=True)]
        return request, infer_param(self._lib, mode, options), kept


class AsyncRun:
    """A run of rkllm_run_async. The arguments live here: keep it until `wait` has returned."""

    def __init__(self, handle: OpenHandle, arguments: object) -> None:
        self._handle, self._arguments = handle, arguments

    def wait(self, timeout_s: float) -> Outcome:
        """Block until FINISH or ERROR, or until the library says that it is idle: after an abort or a pause there
        may be no last callback. Raises NpuError, also after `timeout_s`, when it was told to abort."""
        deadline = time.monotonic() + timeout_s
        receiver = self._handle.receiver
        while not receiver.ended.wait(POLL_S) and self._handle.is_running():
            if time.monotonic() > deadline:
                self._handle.abort()
                raise NpuError(f"rkllm_run_async did not end within {timeout_s:g} s", NpuReason.RUN_FAILED)
        receiver.ended.wait(POLL_S)  # idle was seen just before FINISH was heard
        while self._handle.is_running() and time.monotonic() < deadline:
            time.sleep(POLL_S)  # FINISH is called from inside the run
        receiver.forget()
        flush_stdio()
        return self._handle.outcome(0)


def flush_stdio() -> None:
    """Bring out what the library printed: into a pipe its stdout is block-buffered, and a crash would lose it."""
    ctypes.CDLL(None).fflush(None)
