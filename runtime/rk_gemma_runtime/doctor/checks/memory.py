"""RAM, swap, CMA and open files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import SAFE_FDS, SMALL_BOARD, WANTED_FDS
from rk_gemma_runtime.doctor.findings import NOTE, OK, WARNING, Finding
from rk_gemma_runtime.memory.cures import LARGEST, RAISE_GROUP
from rk_gemma_runtime.memory.doubts import SMALL_WORDS
from rk_gemma_runtime.memory.request import least_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

MIB = 1 << 20
RAISE = (
    f"LimitNOFILE={WANTED_FDS} in the systemd unit, or a line `* hard nofile {WANTED_FDS}` in"
    " /etc/security/limits.conf and a new login"
)


def check(r: Readings) -> Iterator[Finding]:
    """Check that there is RAM for a model."""
    memory = r.memory
    if memory.total is None or memory.available is None:
        yield Finding("memory", WARNING, "how much RAM there is cannot be read", ("/proc/meminfo",), "mount /proc")
        return
    there = memory.available if memory.machine_available is None else memory.machine_available
    evidence = (f"/proc/meminfo: {_mib(memory.total)} in all, {_mib(there)} available", *_swap(r), *_groups(r))
    least = least_request()
    if memory.available < least.need.total:
        takes = f"{least.shape.name}, the smallest, takes {_mib(least.need.total)} in w8a8"
        title = f"only {_mib(memory.available)} of RAM available: {takes}"
        yield Finding("memory", WARNING, title, evidence, _more(r), "npu_malloc_no_ram")
    elif memory.total < SMALL_BOARD:
        title = f"{_mib(memory.total)} of RAM: {SMALL_WORDS}"
        remedy = "run it without a desktop: sudo systemctl isolate multi-user.target; a smaller --context helps too"
        yield Finding("memory", WARNING, title, evidence, remedy, "npu_malloc_no_ram")
    else:
        yield Finding("memory", OK, f"{_mib(memory.available)} of {_mib(memory.total)} RAM available", evidence)
    if memory.zram and memory.available < least.need.total:
        title = "the swap is zram: it lies in RAM and cannot hold an NPU's buffers"
        yield Finding("zram", NOTE, title, (f"/proc/swaps: {_mib(memory.zram)}",))


def _more(r: Readings) -> str:
    memory = r.memory
    if memory.available is not None and memory.available < (memory.machine_available or 0):
        return f"raise the control group's limit: {RAISE_GROUP}"
    small = memory.total is not None and memory.total < SMALL_BOARD
    return "use a board with 8 GB or more" if small else f"stop other programs: {LARGEST}"


def _groups(r: Readings) -> list[str]:
    return [
        f"control group, {level.where}: {_mib(level.limit)} allowed, {_mib(level.free)} of it left"
        for level in r.memory.groups
    ]


def _swap(r: Readings) -> list[str]:
    memory = r.memory
    if not memory.swap_total:
        return ["no swap"]
    zram = f", {_mib(memory.zram)} of it zram" if memory.zram else ""
    return [f"swap {_mib(memory.swap_total)}, {_mib(memory.swap_free or 0)} free{zram}"]


def check_limits(r: Readings) -> Iterator[Finding]:
    """Check the hard limit of open files; the worker raises the soft one by itself."""
    soft, hard = r.limits.soft, r.limits.hard
    if soft is None or hard is None:
        return
    evidence = (f"/proc/self/limits: Max open files {soft} soft, {hard} hard",)
    if hard < SAFE_FDS:
        title = f"at most {hard} open files: each NPU buffer may take one"
        yield Finding("open_files", WARNING, title, evidence, RAISE, "fd_limit")
    else:
        yield Finding("open_files", OK, f"up to {hard} open files", evidence)


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"
