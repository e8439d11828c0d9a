"""What the runtime adds to a token: from the library's callback in the worker to the caller's iterator."""

from __future__ import annotations

import ctypes
import os
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.processes import cpu_seconds, temporary_profile
from bench.synthetic import SMALL, write_checkpoint
from bench.table import Row
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime import Assistant
from rk_gemma_runtime.jobs import Finish, Request, Sampling, Setup
from rk_gemma_runtime.librkllm.abi.layout import InputType
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.supervisor import Backend, Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOKENS = 20_000
RUNS = 9
PROMPT = (2, 5, 7)


def measure(library: Path, scratch: Path) -> list[Row]:
    """Three rows per token on a simulator that computes nothing: the callback, wall and CPU time of the whole."""
    source = write_checkpoint(scratch / "small", SMALL, context=TOKENS + 64)
    bundle = scratch / "small-bundle"
    export(source, bundle, Options(cpu="none", context=TOKENS + 64))
    os.environ.update(temporary_profile(scratch, compute=False))
    try:
        bare, callback = _callbacks(library, bundle / "model.sim")
        wall, cpu = _whole(library, bundle)
    finally:
        del os.environ["RK_GEMMA_SIM_PROFILE"]
    beside = f"bare ctypes callback, same library, {bare:.2f} us: ratio"
    peer = "best peer (library not isolated) 31 us"
    return [
        Row(
            "callback in the worker, per token",
            f"{callback:.2f} us",
            f"{beside} {callback / bare:.2f}",
            "ratio <= 1.5",
        ),
        Row("runtime overhead per token, wall", f"{wall:.2f} us", f"{beside} {wall / bare:.1f}; {peer}", "<= 20 us"),
        Row("the same, CPU of both processes", f"{cpu:.2f} us", "", "<= 15 us"),
    ]


def _callbacks(library: Path, model: Path) -> tuple[float, float]:
    """Microseconds per token, median: a bare ctypes program's, and the worker's, by turns."""
    bare, times = Bare(library, model), ([], [])  # type: tuple[Bare, tuple[list[float], list[float]]]
    worker = Backend(Source("npu", Setup(str(model), TOKENS + 64, library=str(library))))
    try:
        for _ in range(RUNS):
            times[0].append(bare.run())
            times[1].append(_decode(worker))
            worker.reset()
    finally:
        worker.close()
    return median(times[0]) * 1e6, median(times[1]) * 1e6


def _decode(worker: Backend) -> float:
    """Seconds per token between the first and the last, as the worker's clock has it."""
    *_, finish = worker.generate(Request(PROMPT, TOKENS, (), Sampling(0.0)))
    assert isinstance(finish, Finish)
    assert finish.new_tokens == TOKENS
    return finish.decode_s / TOKENS


class Bare:
    """The callback as everybody writes it: POINTER(RKLLMResult), contents, a list."""

    def __init__(self, library: Path, model: Path) -> None:
        self._library = load(library)
        self._structs, self._cdll = self._library.layout.structs, self._library.cdll
        self._seen: list[tuple[int, bytes]] = []
        self._callback = self._library.layout.result_callback(_collector(self._seen))
        self._handle = ctypes.c_void_p()
        param = self._cdll.rkllm_createDefaultParam()
        param.model_path, param.max_context_len = os.fsencode(model), TOKENS + 64
        callbacks = self._structs["RKLLMCallback"](result_callback=self._callback)
        self._cdll.rkllm_init(ctypes.byref(self._handle), ctypes.byref(param), ctypes.byref(callbacks))

    def run(self) -> float:
        """Seconds per token of one run."""
        self._seen.clear()
        self._cdll.rkllm_clear_kv_cache(self._handle, 0, None, None)
        ids = (ctypes.c_int32 * len(PROMPT))(*PROMPT)
        request, infer = self._structs["RKLLMInput"](), self._structs["RKLLMInferParam"](max_new_tokens=TOKENS)
        request.input_type = InputType.TOKEN
        request.token_input.input_ids = ctypes.cast(ids, ctypes.POINTER(ctypes.c_int32))
        request.token_input.n_tokens = len(PROMPT)
        start = time.perf_counter()
        self._cdll.rkllm_run(self._handle, ctypes.byref(request), ctypes.byref(infer), None)
        assert len(self._seen) == TOKENS
        return (time.perf_counter() - start) / TOKENS


def _collector(seen: list[tuple[int, bytes]]) -> Callable[[Any, object, int], int]:
    def on_result(result: Any, userdata: object, state: int) -> int:
        if state == 0:
            token = result.contents
            seen.append((token.token_id, token.text))
        return 0

    return on_result


def _whole(library: Path, bundle: Path) -> tuple[float, float]:
    walls, cpus = [], []
    with Assistant.open(bundle, backend="npu", librkllmrt=str(library)) as assistant:
        pids = [os.getpid(), assistant.worker_pid or 0]
        for _ in range(RUNS):
            used, start = cpu_seconds(pids), time.perf_counter()
            for _piece in assistant.generate(PROMPT, max_tokens=TOKENS, temperature=0):
                pass
            walls.append((time.perf_counter() - start) / TOKENS)
            cpus.append((cpu_seconds(pids) - used) / TOKENS)
            assert assistant.last is not None
            assert assistant.last.new_tokens == TOKENS
            assistant.forget()
    return median(walls) * 1e6, median(cpus) * 1e6
