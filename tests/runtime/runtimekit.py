"""What the runtime's tests share: patience, profiles, golden data, and looking at processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil

from rk_gemma_runtime.jobs import Setup
from rk_gemma_runtime.supervisor import Source

Cli = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "gemma"
FAMILIES = ("tiny-gemma2", "tiny-gemma1")
# Under qemu everything takes about twenty times as long.
PATIENCE = float(os.environ.get("RK_GEMMA_TEST_PATIENCE", "1"))
POLL_S = 0.005


def patient(seconds: float) -> float:
    """A deadline in seconds for this machine."""
    return seconds * PATIENCE


def wait_until(true: Callable[[], bool], what: str, seconds: float = 15) -> None:
    """Poll until `true()`; fails with `what` after `seconds` of patience."""
    deadline = time.monotonic() + patient(seconds)
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {patient(seconds):g} s still not: {what}")
        time.sleep(POLL_S)


def source(kind: Any, model: Path, context: int = 128, threads: int = 1, library: str = "") -> Source:
    """What a worker shall load, for tests below the model."""
    return Source(kind, Setup(str(model), context, threads, library=library))


def nothing(*anything: object) -> None:
    """A listener that does not care."""


def jsonl(name: str) -> list[dict[str, Any]]:
    """The records of a golden file."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


# key=value,... for the simulator in every test that says nothing else: how questions that only a board can answer are
# asked both ways (test_open_questions.py).
SWITCHES = "RK_GEMMA_TEST_SWITCHES"


def switches() -> dict[str, str]:
    """What RK_GEMMA_TEST_SWITCHES says."""
    return dict(part.split("=") for part in filter(None, os.environ.get(SWITCHES, "").split(",")))


def tolerance() -> float:
    """How far logits and hidden states may be from transformers': more where keys and values are halves."""
    return 0.1 if switches().get("kv_dtype") == "f16" else 5e-3


def forgets_on_rewind() -> bool:
    """Whether the simulator is told that window layers keep a short cache: a prompt that leaves the old one's path
    then costs a whole prefill, and how much was reused says nothing."""
    return switches().get("kv_sliding") == "window"


def write_profile(path: Path, **simulator: object) -> Path:
    """A board profile with these keys under `simulator`. A key such as crash_at_token counts the tokens of answers:
    the first run of a process only proves that its load worked."""
    given = {**switches(), "spared_runs": 1, **simulator}
    words = {k: str(v).lower() if isinstance(v, bool) else v for k, v in given.items()}
    path.write_text("simulator:\n" + "".join(f"  {k}: {v}\n" for k, v in words.items()))
    return path


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below `pid`."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def gone(pids: Iterable[int]) -> bool:
    """Whether none of these runs."""
    return not any(alive(pid) for pid in pids)


def scratch_left(folder: Path) -> list[str]:
    """Private directories of rk-gemma in a temporary directory."""
    return sorted(p.name for p in folder.glob("rk-gemma-*"))


def without_cuts(stderr: str) -> str:
    """Without the lines that say that --max-tokens ended an answer."""
    return "".join(line for line in stderr.splitlines(keepends=True) if "the answer was cut off" not in line)


def one_line(stderr: str) -> str:
    """The only line on stderr, which is ours."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("rk-gemma: "), stderr
    return lines[0]
