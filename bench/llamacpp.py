"""llama.cpp itself, on the same file: a process that holds it as xllamacpp opens it by default.

`python -m bench.llamacpp MODEL CONTEXT THREADS` reads a line [ids, tokens] of JSON at a time and answers each with
llama.cpp's own [prompt tokens per second, generated tokens per second].
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]


class LlamaCpp:
    """Such a process; `spins` as GOMP_SPINCOUNT, None for libgomp's default."""

    def __init__(self, model: Path, context: int, threads: int, spins: int | None) -> None:
        kept = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
        setting = {} if spins is None else {"GOMP_SPINCOUNT": str(spins)}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.llamacpp", str(model), str(context), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**kept, **setting},
            text=True,
        )

    def measure(self, ids: Sequence[int], tokens: int) -> tuple[float, float]:
        """Tokens per second of the prompt (of what was not cached) and of the answer."""
        assert self._child.stdin is not None and self._child.stdout is not None
        print(json.dumps([list(ids), tokens]), file=self._child.stdin, flush=True)
        prompt, answer = json.loads(self._child.stdout.readline())
        return prompt, answer

    def close(self) -> None:
        """End it."""
        self._child.communicate()


def main() -> None:
    """Serve standard input."""
    import xllamacpp

    model, context, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = model, context, 1
    params.warmup, params.fit_params, params.verbosity, params.ui = False, False, 0, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    with tempfile.TemporaryDirectory() as name:
        params.hostnames = [f"{name}/s.sock"]
        server = xllamacpp.Server(params)
        for line in sys.stdin:
            ids, tokens = json.loads(line)
            print(json.dumps(_speeds(server, ids, tokens)), flush=True)


def _speeds(server: Any, ids: list[int], tokens: int) -> tuple[float, float]:
    last: dict[str, float] = {}

    def on_chunk(chunk: bytes) -> bool:
        last.update(json.loads(chunk).get("timings") or {})
        return False

    body = {
        "prompt": ids, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True,
        "cache_prompt": True, "timings_per_token": True,
    }  # fmt: skip
    server.handle_completions(json.dumps(body).encode(), on_chunk)
    return last["prompt_per_second"], last["predicted_per_second"]


if __name__ == "__main__":
    main()
