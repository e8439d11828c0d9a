"""CPU speed beside llama.cpp itself, quiet and beside a busy process, at an empty context and behind 3,000 tokens."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.llamacpp import LlamaCpp
from bench.synthetic import HALF_BILLION, write_checkpoint
from bench.table import Row
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.jobs import Finish, Request, Sampling, Setup
from rk_gemma_runtime.supervisor import Backend, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

THREADS = 2
CONTEXT = 4096
LONG, SHORT, TOKENS = 3000, 400, 32
ROUNDS = 3
BUSY = "import os; me = os.getppid()\nwhile os.getppid() == me: pass"  # goes with a benchmark that is killed
SETTINGS = {"libgomp's default": None, "1,000 turns": 1000}


class Product:
    """The product's worker, asked as a peer is."""

    def __init__(self, model: Path) -> None:
        self._worker = Backend(Source("cpu", Setup(str(model), CONTEXT, THREADS)))

    def measure(self, ids: list[int], tokens: int) -> tuple[float, float]:
        """As LlamaCpp.measure."""
        *_, finish = self._worker.generate(Request(tuple(ids), tokens, (), Sampling(0.0)))
        assert isinstance(finish, Finish)
        read = finish.prompt_tokens - finish.cached_tokens
        return read / max(finish.prefill_s, 1e-9), finish.new_tokens / max(finish.decode_s, 1e-9)

    def close(self) -> None:
        """End it."""
        self._worker.close()


@dataclass
class Speeds:
    """Of one contender: what was measured, by situation."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, speed: float) -> None:
        self.of.setdefault(what, []).append(speed)


def measure(scratch: Path) -> list[Row]:
    """A row for each situation: the product's median, and its ratio to the better setting of llama.cpp."""
    source = write_checkpoint(scratch / "half-long", HALF_BILLION, context=CONTEXT)
    export(source, scratch / "half-long-bundle", Options(npu="none", cpu="Q8_0", context=CONTEXT))
    model = scratch / "half-long-bundle" / "model.gguf"
    contenders: dict[str, Any] = {name: LlamaCpp(model, CONTEXT, THREADS, spins) for name, spins in SETTINGS.items()}
    contenders["product"] = Product(model)
    found = {name: Speeds() for name in contenders}
    try:
        for turn in range(ROUNDS):
            for load in ("quiet", "beside a busy process"):
                with _busy(load != "quiet"):
                    for name, contender in contenders.items():
                        _once(contender, found[name], load, turn)
    finally:
        for contender in contenders.values():
            contender.close()
    return list(_rows(found))


class _busy:
    """One process that computes, meanwhile."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        self._child = subprocess.Popen([sys.executable, "-c", BUSY]) if self._wanted else None

    def __exit__(self, *error: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()


def _once(contender: Any, speeds: Speeds, load: str, turn: int) -> None:
    """Prompts that no earlier one begins like, so that each is read whole; then answers behind them."""
    seed = 10 * turn + (5 if load != "quiet" else 0)
    contender.measure([2, 300 + seed], 2 * TOKENS)  # a moment for what follows the load
    short = [2, *((7 * i + seed) % 900 + 200 for i in range(SHORT))]
    speeds.add(f"prefill of {SHORT}, {load}", contender.measure(short, 1)[0])
    speeds.add(f"decode, {load}", contender.measure([2, 5, 400 + seed], TOKENS)[1])
    long = [2, *((11 * i + seed) % 900 + 200 for i in range(LONG))]
    speeds.add(f"prefill of {LONG}, {load}", contender.measure(long, 1)[0])
    speeds.add(f"decode behind {LONG}, {load}", contender.measure(long, TOKENS)[1])


def _rows(found: dict[str, Speeds]) -> Iterator[Row]:
    for what, ours in found["product"].of.items():
        peers = {name: median(found[name].of[what]) for name in SETTINGS}
        best = max(peers, key=lambda name: peers[name])
        beside = ", ".join(f"{name} {speed:.1f}" for name, speed in peers.items())
        ratio = median(ours) / peers[best]
        yield Row(
            f"CPU {what}", f"{median(ours):.1f} tokens/s", f"llama.cpp: {beside}: ratio {ratio:.2f}", "ratio >= 0.97"
        )
