"""What rkllm_createDefaultParam writes, found out in a process of its own: whatever the library does, only that ends.

Run as a script by `trial`, without the package and without site: it must start fast. The answer goes to a
descriptor of its own, in lines: `loading`, `calling`, `run FILL HEX` (`-`: not filled), `error TEXT`, `end`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import resource
import signal
import struct
import sys

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 4096  # many times the largest known RKLLMParam
FILLS = (0xA5, 0x5A)  # what stands in both runs was written
MOV_X8_X0, BR_X1 = 0xAA0003E8, 0xD61F0020
PROT_READ, PROT_EXEC = 1, 4
PR_SET_PDEATHSIG = 1


def open_shared(path: str) -> ctypes.CDLL:
    """Load by absolute path: without a slash the loader would search. A library that it needs and that only lies
    beside it is loaded first. Raises OSError with the loader's message."""
    path = os.path.abspath(path)
    try:
        return ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        missing = re.match(r"([^/\s]+): cannot open shared object file", str(error))
        beside = os.path.join(os.path.dirname(path), missing.group(1)) if missing else ""
        if not os.path.isfile(beside):
            raise
    ctypes.CDLL(beside, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    return ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)


def main(answer: int, path: str, limit_s: float) -> None:
    """Probe `path` and write what comes of it to the descriptor."""
    _restrict(limit_s)
    _tell(answer, "loading")
    try:
        function = open_shared(path).rkllm_createDefaultParam
        _tell(answer, "calling")
        for fill, data in _runs(function):
            _tell(answer, f"run {'-' if fill is None else fill} {data.hex()}")
    except (OSError, AttributeError) as error:
        _tell(answer, "error " + " ".join(str(error).split()))
    _tell(answer, "end")


def _tell(answer: int, line: str) -> None:
    os.write(answer, line.encode(errors="replace") + b"\n")


def _restrict(limit_s: float) -> None:
    """No core dump (1 also keeps it from a handler that the kernel pipes it to), and an end with the parent's."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    core = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.setitimer(signal.ITIMER_REAL, limit_s + 1)


def _runs(function: object) -> Sequence[tuple[int | None, bytes]]:
    """(fill, bytes afterwards) of each call."""
    address = ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
    try:
        return by_address(address)
    except OSError:  # a system that never lets a written page be executed
        return by_value(address)


def by_address(function: int) -> list[tuple[int, bytes]]:
    """The struct is returned through a hidden address: x8 on aarch64, the first argument elsewhere. Raises OSError
    where x8 cannot be set."""
    if platform.machine() != "aarch64" or struct.calcsize("P") != 8:
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
        return [(fill, _fill(call, fill)) for fill in FILLS]
    page = _trampoline()
    jump = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(_address(page))
    return [(fill, _fill(lambda buffer: jump(buffer, function), fill)) for fill in FILLS]


def by_value(function: int) -> list[tuple[None, bytes]]:
    """As a struct that is large enough: what the library does not write is whatever was there before."""
    return [(None, bytes(ctypes.CFUNCTYPE(_Large)(function)()))]


class _Large(ctypes.Structure):
    _fields_ = (("data", ctypes.c_uint8 * SIZE),)


def _fill(call: object, fill: int) -> bytes:
    buffer = (ctypes.c_uint8 * SIZE)(*([fill] * SIZE))
    call(ctypes.addressof(buffer))  # type: ignore[operator]
    return bytes(buffer)


def _trampoline() -> mmap.mmap:
    """A page with `mov x8, x0; br x1`, which ctypes cannot say. The page is fresh, so the kernel makes the caches
    agree when it turns executable; it is never writable then. Raises OSError where that is refused."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[:8] = struct.pack("<2I", MOV_X8_X0, BR_X1)
    libc = ctypes.CDLL(None, use_errno=True)
    where, size = ctypes.c_void_p(_address(page)), ctypes.c_size_t(mmap.PAGESIZE)
    if libc.mprotect(where, size, PROT_READ | PROT_EXEC) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    return page


def _address(page: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
    os._exit(0)  # whatever the library does at exit has nothing to say
