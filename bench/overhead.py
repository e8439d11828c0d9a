"""What the runtime adds to a token: from the library's callback in the worker to the caller's iterator."""

from __future__ import annotations

import os
import time
from statistics import median
from typing import TYPE_CHECKING

from bench.processes import cpu_seconds, temporary_profile
from bench.synthetic import SMALL, write_checkpoint
from bench.table import Row
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime import Assistant
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.librkllm.session import GREEDY, InitOptions, RunOptions, Session, Tokens

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = 20_000
RUNS = 5


def measure(library: Path, scratch: Path) -> list[Row]:
    """Two rows: wall and CPU time per token on a simulator that computes nothing."""
    source = write_checkpoint(scratch / "small", SMALL, context=TOKENS + 64)
    bundle = scratch / "small-bundle"
    export(source, bundle, Options(cpu="none", context=TOKENS + 64))
    os.environ.update(temporary_profile(scratch, compute=False))
    try:
        bare = _bare(library, bundle / "model.sim")
        wall, cpu = _whole(library, bundle)
    finally:
        del os.environ["RK_GEMMA_SIM_PROFILE"]
    beside = f"bare ctypes loop in process {bare:.2f} us ({wall / bare:.1f}x)"
    peer = "best peer (library not isolated) 31 us"
    return [
        Row("runtime overhead per token, wall", f"{wall:.2f} us", f"{beside}; {peer}", "<= 20 us"),
        Row("the same, CPU of both processes", f"{cpu:.2f} us", "", "<= 15 us"),
    ]


def _bare(library: Path, model: Path) -> float:
    session = Session(load(library), model, InitOptions(TOKENS + 64, GREEDY))
    times = []
    for _ in range(RUNS):
        seen: list[int] = []
        start = time.perf_counter()
        options = RunOptions(max_new_tokens=TOKENS)
        session.run(Tokens([2, 5, 7]), lambda token, text, seen=seen: seen.append(token), options)  # type: ignore[misc]
        times.append((time.perf_counter() - start) / len(seen))
        session.clear()
    session.close()
    return median(times) * 1e6


def _whole(library: Path, bundle: Path) -> tuple[float, float]:
    walls, cpus = [], []
    with Assistant.open(bundle, backend="npu", librkllmrt=str(library)) as assistant:
        pids = [os.getpid(), assistant.worker_pid or 0]
        for _ in range(RUNS):
            used, start = cpu_seconds(pids), time.perf_counter()
            for _piece in assistant.generate([2, 5, 7], max_tokens=TOKENS, temperature=0):
                pass
            walls.append((time.perf_counter() - start) / TOKENS)
            cpus.append((cpu_seconds(pids) - used) / TOKENS)
            assert assistant.last is not None
            assert assistant.last.new_tokens == TOKENS
            assistant.forget()
    return median(walls) * 1e6, median(cpus) * 1e6
