"""Where `rk-gemma explain` gets its bytes: a file, standard input, the journal, the kernel log."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from rk_gemma_runtime.cli.talk import say
from rk_gemma_runtime.errors import InputError, RkGemmaError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import BinaryIO

CHUNK = 1 << 18
JOURNALCTL = ("journalctl", "-b", "-o", "short-iso", "--no-pager")
KMSG = "/dev/kmsg"
KMSG_RECORD = 8192
KERNEL_LOG_CLOSED = "the kernel log is for root here; run: sudo dmesg | rk-gemma explain -"
DENIED = ("not permitted", "permission denied")
# What journalctl says to users who see only their own entries.
ONLY_OWN = "not seeing messages"


def file_chunks(path: str) -> Iterator[bytes]:
    """Read a file, or standard input for "". Raises InputError while it is read."""
    try:
        if not path:
            yield from _chunks(sys.stdin.buffer)
            return
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISCHR(mode) and not file.isatty():
                raise InputError(f"{path}: a device, not a log; for the kernel's log use --dmesg")
            if stat.S_ISREG(mode):  # /proc/kmsg and trace_pipe call themselves so, and wait for what comes next
                os.set_blocking(file.fileno(), False)
            yield from _chunks(file)
    except OSError as error:
        raise InputError(f"{path or 'standard input'}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name, or a stream that was closed
        raise InputError(f"{path or 'standard input'}: cannot be read: {error}") from error


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def journal() -> Iterator[bytes]:
    """Read the journal of this boot, as far as this user may. Raises RkGemmaError."""
    said = yield from _output(JOURNALCTL)
    if ONLY_OWN in said:
        say("only your own journal entries were read; as root it is all of them")


def dmesg() -> Iterator[bytes]:
    """Read the kernel log, by `dmesg` or /dev/kmsg. Raises RkGemmaError."""
    try:
        yield from _output(("dmesg",))
    except NoProgram:
        yield from _kmsg()


class NoProgram(RkGemmaError):
    """A program that is not on this system."""


def _output(command: tuple[str, ...]) -> Generator[bytes, None, str]:
    """Yield what a program prints; returns its stderr. Raises RkGemmaError if it fails without output."""
    count = 0
    with tempfile.TemporaryFile() as errors:
        try:
            # It writes to our pipe and not to a terminal; SIGPIPE ends it if we stop reading.
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        except OSError as error:
            reason = "not on this system" if isinstance(error, FileNotFoundError) else error.strerror
            raise NoProgram(f"{command[0]}: {reason}; give a log file, or pipe one in") from error
        with child:
            assert child.stdout is not None
            for chunk in iter(partial(child.stdout.read, CHUNK), b""):
                count += len(chunk)
                yield chunk
        errors.seek(0)
        said = errors.read(4096).decode(errors="replace").strip()
    if child.returncode and not count:
        raise RkGemmaError(_failure(command[0], child.returncode, said))
    return said


def _failure(name: str, status: int, said: str) -> str:
    if name == "dmesg" and any(word in said.lower() for word in DENIED):
        return KERNEL_LOG_CLOSED
    return f"{name} failed: {said.splitlines()[0][:200] if said else f'status {status}'}"


def _kmsg() -> Iterator[bytes]:
    """Read one record at a time: `level,number,microseconds,flags;text`, then lines that begin with a blank."""
    try:
        descriptor = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise RkGemmaError(KERNEL_LOG_CLOSED) from error
    except OSError as error:
        raise RkGemmaError(f"neither dmesg nor {KMSG} is there ({error.strerror}); give a log file") from error
    try:
        with suppress(BlockingIOError):  # all that there is has been read
            while True:
                try:
                    record = os.read(descriptor, KMSG_RECORD)
                except BrokenPipeError:  # overwritten while we read; the next one is there
                    continue
                if not record:
                    return
                yield record.partition(b";")[2].split(b"\n", 1)[0] + b"\n"
    finally:
        os.close(descriptor)
