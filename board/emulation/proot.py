"""Entering the tree under proot: for kernels and containers that allow ptrace but no namespaces."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import relay
from job import HOME, Unavailable, find_qemu

if TYPE_CHECKING:
    from job import Job

PTRACE_TRACEME = 0
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
SECCOMP_ALLOW, SECCOMP_ERRNO = 0x7FFF0000, 0x00050000
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
NEW_CALLS = (
    {"x86_64": 332, "aarch64": 291},  # statx
    {"x86_64": 437, "aarch64": 437},  # openat2
    {"x86_64": 439, "aarch64": 439},  # faccessat2
)


def run(job: Job) -> int:
    """Run JOB; its exit status. The tree itself stays writable: proot has no read-only bind."""
    program = shutil.which("proot")
    if program is None:
        raise Unavailable("proot is not installed: apt-get install proot")
    if not _may_trace():
        raise Unavailable("proot: ptrace is forbidden here: start the container with --cap-add=SYS_PTRACE")
    with tempfile.TemporaryDirectory(prefix="rk-gemma-home-") as home:
        return _supervise(_command_line(program, job, home), job)


def _command_line(program: str, job: Job, home: str) -> list[str]:
    qemu = find_qemu()
    binds = [(Path(name), name) for name in ("/dev", "/proc", "/sys")] + job.binds + [(Path(home), HOME)]
    line = [program, "-r", str(job.root), "-w", job.cwd]
    if qemu is not None:
        line += ["-q", qemu]
    for source, inside in binds:
        line += ["-b", f"{source}:{inside}"]
    return [*line, *job.command]


def _supervise(line: list[str], job: Job) -> int:
    mask = relay.block()

    def prepare() -> None:
        _hide_new_calls()
        relay.prepare_exec(mask)

    process = subprocess.Popen(line, env=job.env, cwd="/", preexec_fn=prepare)
    guard, leash = _leave_guard(process.pid)
    threading.Thread(target=_sweep, args=[process.pid], daemon=True).start()
    process.returncode = relay.wait(process.pid, lambda: _first_child(process.pid) or process.pid)
    os.close(leash)
    os.waitpid(guard, 0)
    return process.returncode


def _hide_new_calls() -> None:
    """Make system calls that proot 5.1 lets through with the host's paths fail with ENOSYS: there is always
    an older call to fall back to."""
    numbers = [number for call in NEW_CALLS if (number := call.get(platform.machine()))]
    steps = [(BPF_LOAD_WORD, 0, 0, 0)]
    steps += [(BPF_JUMP_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(BPF_RETURN, 0, 0, SECCOMP_ALLOW), (BPF_RETURN, 0, 0, SECCOMP_ERRNO | errno.ENOSYS)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    relay.libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    relay.libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def _leave_guard(tracer: int) -> tuple[int, int]:
    """Fork a process that ends what runs under TRACER when this one ends, even by SIGKILL: its pid, and the
    descriptor whose closing sets it off."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(writer)
        os.read(reader, 1)
        _kill_traced(tracer)
        os._exit(0)
    os.close(reader)
    return pid, writer


def _sweep(tracer: int) -> None:
    """Once the command has ended, end what it left running: proot would wait for it forever."""
    try:
        while not (command := _first_child(tracer)):
            time.sleep(0.01)
        with os.fdopen(os.pidfd_open(command)) as ended:
            select.select([ended], [], [])
        _kill_traced(tracer)
    except (ProcessLookupError, FileNotFoundError):
        return


def _first_child(tracer: int) -> int | None:
    """The command's own process: proot itself turns a deaf ear to signals."""
    children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
    return int(children[0]) if children else None


def _kill_traced(tracer: int) -> None:
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"TracerPid:\t{tracer}\n" in status.read_text():
                os.kill(int(status.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _may_trace() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if relay.libc.ptrace(PTRACE_TRACEME, 0, None, None) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0
