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
from rk_gemma_runtime.librkllm.rules import require_symbol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rk_gemma_runtime.librkllm.inputs import Input
    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.librkllm.options import InitOptions
    from rk_gemma_runtime.librkllm.receiver import Listen, OnToken
    from rk_gemma_runtime.librkllm.supplied import Supplied

POLL_S = 0.02
ABORT_S = 1.0  # so long a call of rkllm_abort that blocks is waited for


class OpenHandle:
    """One LLMHandle and its callback."""

    def __init__(self, library: Library, model: Path, options: InitOptions, supplied: Supplied) -> None:
        """Call rkllm_init. Raises NpuError, UnsupportedCall; the handle is then gone."""
        self._lib, self._cdll = library, library.cdll
        self._handle = Handle()
        self._aborted = False
        self._aborter: threading.Thread | None = None
        self._arguments: tuple[Any, ...] = ()
        self._given_up = False
        param = init_param(library, model, options)
        self.receiver = receiver = library.callbacks.lend(self._abort_soon)
        if receiver.struct is not None:
            receiver.supply(supplied, library.layout)
        third = receiver.function if receiver.struct is None else ctypes.byref(receiver.struct)
        code = self._cdll.rkllm_init(ctypes.byref(self._handle), ctypes.byref(param), third)
        flush_stdio()
        if code != 0 or not self._handle:  # some releases return 0 with a null handle
            self._handle = Handle()
            library.callbacks.take_back(receiver)
            raise NpuError(f"rkllm_init failed (returned {code})", NpuReason.INIT_FAILED)
        # Headers before 1.3.0 say 0 = running, the maintainer says 1: what an idle handle answers settles it.
        self._idle = self._cdll.rkllm_is_running(self._handle)

    def call(self, symbol: str, *arguments: Any) -> None:
        """Make a call that returns 0 when it worked. Raises NpuError, UnsupportedCall."""
        require_symbol(self._lib, symbol)
        code = getattr(self._cdll, symbol)(self._handle, *arguments)
        flush_stdio()
        if code != 0:
            raise NpuError(f"{symbol} failed (returned {code})", NpuReason.RUN_FAILED)

    def run(
        self, items: Sequence[Input], mode: InferMode, options: RunOptions | None,
        *, listen: Listen | None = None, on_token: OnToken | None = None,
    ) -> Outcome:  # fmt: skip
        """Call rkllm_run. Blocks. Raises NpuError, and what the listener raised."""
        request, infer = self._begin(items, mode, options or RunOptions())
        number = self.receiver.expect(listen, on_token)
        try:
            code = self._cdll.rkllm_run(self._handle, request, infer, number)
            if code != 0 and not self._aborted:
                self.receiver.refused()
        finally:
            self.end_run()
        return self.outcome(code)

    def start(self, item: Input, options: RunOptions | None, on_token: OnToken) -> AsyncRun:
        """Call rkllm_run_async, generating."""
        request, infer = self._begin([item], InferMode.GENERATE, options or RunOptions())
        number = self.receiver.expect(on_token=on_token)
        code = self._cdll.rkllm_run_async(self._handle, request, infer, number)
        if code != 0:
            self.end_run()
            raise NpuError(f"rkllm_run_async failed (returned {code})", NpuReason.RUN_FAILED)
        return AsyncRun(self)

    def end_run(self) -> None:
        """Clean up after a run: nothing is heard any more, and no abort is on its way that could hit the next one."""
        self.receiver.forget()
        if self._aborter is not None:
            self._aborter.join(ABORT_S)
        self._aborter = None
        flush_stdio()

    def give_up(self) -> None:
        """Have a run stop and hear no more of it."""
        self._given_up = True
        self.abort()
        self.end_run()

    def outcome(self, code: int) -> Outcome:
        """Judge a run that has come back."""
        receiver = self.receiver
        if receiver.raised is not None:
            raise receiver.raised
        finished = receiver.ended.is_set() and not receiver.failed
        failed = receiver.failed or (code != 0 and not finished)  # after FINISH the value means nothing
        if failed and not self._aborted:  # some releases return an error for a run that was aborted as asked
            raise NpuError(f"rkllm_run failed (returned {code})", NpuReason.RUN_FAILED)
        return Outcome(finished, receiver.paused, receiver.perf, receiver.end_id)

    def may_end_silently(self) -> bool:
        """Whether the run may be over although no FINISH or ERROR was heard."""
        return self._aborted or self.receiver.paused or self.receiver.raised is not None

    def is_running(self) -> bool:
        """Whether a run is going on. From any thread."""
        return bool(self._handle) and self._cdll.rkllm_is_running(self._handle) != self._idle

    def abort(self) -> None:
        """Call rkllm_abort. From any thread but the callback's."""
        if self._handle:
            self._aborted = True
            self._cdll.rkllm_abort(self._handle)

    def close(self) -> None:
        """Call rkllm_destroy, at most once."""
        handle, self._handle = self._handle, Handle()
        self.end_run()
        if handle:
            self._cdll.rkllm_destroy(handle)
            flush_stdio()
            self._lib.callbacks.take_back(self.receiver)
        self._arguments = ()

    def _abort_soon(self) -> None:
        # Not from inside the callback: whether the library allows that is not known.
        self._aborter = threading.Thread(target=self.abort, daemon=True)
        self._aborter.start()

    def _begin(self, items: Sequence[Input], mode: InferMode, options: RunOptions) -> tuple[Any, Any]:
        """Make RKLLMInput[n] and RKLLMInferParam. They and what they point to live until the next run: one that was
        given up may still be reading them. Raises NpuError while it is."""
        if self._given_up and self.is_running():
            raise NpuError("a run that was given up has not ended yet", NpuReason.RUN_FAILED)
        self._given_up = False
        request = (self._lib.layout.structs["RKLLMInput"] * len(items))()
        kept = [fill(self._lib, part, item) for part, item in zip(request, items, strict=True)]
        infer = infer_param(self._lib, mode, options)
        self._arguments, self._aborted = (request, infer, kept), False
        return request, ctypes.byref(infer)


class AsyncRun:
    """A run of rkllm_run_async."""

    def __init__(self, handle: OpenHandle) -> None:
        self._handle = handle

    def wait(self, timeout_s: float) -> Outcome:
        """Block until FINISH or ERROR or, after an abort or a pause, which may have no last callback, until the
        library says that it is idle. Raises NpuError, also after `timeout_s`, when it was told to abort."""
        deadline = time.monotonic() + timeout_s
        handle, began = self._handle, False
        while not handle.receiver.ended.wait(POLL_S):
            running = handle.is_running()
            began = began or running
            if not running and (began or handle.may_end_silently()):
                break
            if time.monotonic() > deadline:
                handle.give_up()
                raise NpuError(f"rkllm_run_async did not end within {timeout_s:g} s", NpuReason.RUN_FAILED)
        handle.receiver.ended.wait(POLL_S)  # idle was seen just before FINISH was heard
        while handle.is_running() and time.monotonic() < deadline:
            time.sleep(POLL_S)  # FINISH is called from inside the run
        handle.end_run()
        return handle.outcome(0)


def flush_stdio() -> None:
    """Bring out what the library printed: into a pipe its stdout is block-buffered, and a crash would lose it."""
    ctypes.CDLL(None).fflush(None)
