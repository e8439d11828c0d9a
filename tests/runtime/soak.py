"""Run as a program: LIBRARY MODEL RUNS CYCLES. Many runs of one session and many sessions; prints resident memory
(bytes) and open descriptors after the first hundredth and at the end, as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import psutil

from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.librkllm.session import GREEDY, InitOptions, Session, Tokens


def standing() -> dict[str, int]:
    gc.collect()
    process = psutil.Process()
    return {"rss": process.memory_info().rss, "fds": process.num_fds(), "threads": process.num_threads()}


def main() -> None:
    library, model = load(Path(sys.argv[1])), Path(sys.argv[2])
    runs, cycles = int(sys.argv[3]), int(sys.argv[4])
    options = InitOptions(64, GREEDY, max_new_tokens=3)
    said = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    found = {}
    session = Session(library, model, options)
    for number in range(runs):
        session.run(Tokens([2, number % 50 + 5, number % 7 + 60]), lambda token, text: None)
        if number == min(99, runs // 2):
            found["runs_early"] = standing()
    found["runs_late"] = standing()
    session.close()
    for number in range(cycles):
        session = Session(library, model, options)
        session.run(Tokens([2, 5]), lambda token, text: None)
        session.close()
        if number == min(99, cycles // 2):
            found["cycles_early"] = standing()
    found["cycles_late"] = standing()
    os.write(said, json.dumps(found).encode())


if __name__ == "__main__":
    main()
