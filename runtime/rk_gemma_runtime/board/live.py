"""The board this process runs on, as far as a load needs it: a few small files, about a millisecond.

What is not there is not known: a machine without an rknpu driver says nothing about the NPU, and the library itself
will say what it lacks. `rk-gemma doctor` reads more.
"""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

from rk_gemma_runtime.board.cgroup import levels, limited
from rk_gemma_runtime.board.facts import Board, Limits, Memory, Npu
from rk_gemma_runtime.board.profile import find_profile, read_profile
from rk_gemma_runtime.board.versions import version_of

DESCRIBED = "RK_GEMMA_BOARD"
MEMINFO = Path("/proc/meminfo")
LIMIT = 1 << 16
UNLIMITED = 1 << 30


def this_board() -> Board:
    """Return the board of RK_GEMMA_BOARD (a profile's name or file), with this process's own limits where those are
    lower, else what this machine's /proc and /sys tell. Raises UsageError for a bad profile."""
    named = os.environ.get(DESCRIBED, "")
    if named:
        board = read_profile(find_profile(named))
        return replace(board, limits=_lower(board.limits, own_limits()))
    driver = _driver()
    # Without a driver this is not a board: its memory is not a board's.
    memory = own_memory() if driver else Memory()
    return Board(npu=Npu(driver=driver), memory=memory, limits=own_limits())


def _lower(described: Limits, own: Limits) -> Limits:
    pairs = ((described.nofile_soft, own.nofile_soft), (described.nofile_hard, own.nofile_hard))
    soft, hard = (min(limit for limit in pair if limit is not None) for pair in pairs)
    return Limits(soft, hard)


def own_limits() -> Limits:
    """Return RLIMIT_NOFILE of this process, which a worker inherits."""
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (UNLIMITED if limit == resource.RLIM_INFINITY else limit for limit in given)
    return Limits(soft, hard)


def own_memory() -> Memory:
    """Return the memory of this machine that this process may use: a control group may allow it less."""
    return limited(memory_of(_text(MEMINFO)), levels(lambda name: _text(Path("/") / name) or None))


def _driver() -> str | None:
    text = _text(Path("/sys/module/rknpu/version")).strip()
    return text if version_of(text) else None


def memory_of(meminfo: str) -> Memory:
    """Parse /proc/meminfo; a value that is not in kB is not known."""
    values = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
            values[name] = int(words[0]) * 1024
    return Memory(values.get("MemTotal"), values.get("MemAvailable"), values.get("SwapFree"), values.get("CmaTotal"))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT).decode("utf-8", errors="replace")
    except OSError:
        return ""
