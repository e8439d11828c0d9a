"""Finding librkllmrt.so, reading its version from the file, choosing the layout, loading it.

Search order: an explicit path; RK_GEMMA_LIBRKLLMRT; /usr/lib; /usr/local/lib; the loader's cache. A path that was
given explicitly is the only one tried: falling through to another library would hide the mistake.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm.abi import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.librkllm.abi import Layout

NAME = "librkllmrt.so"
VARIABLE = "RK_GEMMA_LIBRKLLMRT"
DIRECTORIES = ("/usr/lib", "/usr/local/lib")
VERSION = re.compile(rb"RKLLM SDK \(version: ([0-9][^ |)]{0,30})")
# e_machine of the ELF header (System V ABI, generic and AArch64 supplements).
MACHINES = {0x3E: "x86_64", 0xB7: "aarch64", 0x28: "armv7l"}


@dataclass(frozen=True)
class Library:
    """A loaded library with typed functions. Unloading is not supported by the vendor: it lives with the process."""

    path: Path
    version: str
    layout: Layout
    cdll: ctypes.CDLL
    callbacks: list[Any] = field(default_factory=list, compare=False)
    """What the library has been given to call: kept alive, for it may call late, also after destroy."""


def find(explicit: str | None = None) -> Path:
    """The library to load. Raises LibraryError that lists every path tried and why it was passed over."""
    given = explicit or os.environ.get(VARIABLE)
    tried = []
    for path in [Path(given)] if given else _candidates():
        fault = _fault(path)
        if fault is None:
            return path
        tried.append(f"{path}: {fault}")
    raise LibraryError(f"no usable {NAME}; tried {'; '.join(tried)}", NpuReason.NO_LIBRARY)


def load(path: Path) -> Library:
    """Identify and load. Raises LibraryError before any call is made if the layout is not known."""
    version = read_version(path)
    layout = choose_layout(version, path)
    try:  # an absolute path: without a slash the loader would search for another file of this name
        cdll = ctypes.CDLL(os.path.abspath(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        raise LibraryError(f"{path}: cannot be loaded: {error}", NpuReason.BAD_LIBRARY) from error
    for symbol, (result, arguments) in layout.functions.items():
        try:
            function = getattr(cdll, symbol)
        except AttributeError:
            raise LibraryError(f"{path}: says version {version} and has no {symbol}", NpuReason.BAD_LIBRARY) from None
        function.restype, function.argtypes = result, arguments
    return Library(path, version, layout, cdll)


def read_version(path: Path) -> str:
    """The SDK string in the file, without loading it. Raises LibraryError if there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = VERSION.search(data)
        version = found.group(1).decode() if found else None
    if version is None:
        raise LibraryError(
            f"{path}: holds no RKLLM SDK version, so its struct layout is unknown and it is not called",
            NpuReason.BAD_LIBRARY,
        )
    return version


def choose_layout(version: str, path: Path) -> Layout:
    """The layout of a release. Raises LibraryError for a release that is not in the tables."""
    for layout in LAYOUTS.values():
        if layout.covers(version):
            return layout
    known = ", ".join(r for layout in LAYOUTS.values() for r in layout.releases)
    raise LibraryError(
        f"{path}: librkllmrt {version} has a struct layout that this rk-gemma does not know (known: {known})",
        NpuReason.BAD_LIBRARY,
    )


def _candidates() -> Iterator[Path]:
    for directory in DIRECTORIES:
        yield Path(directory) / NAME
    yield from _cached()


def _cached() -> Iterator[Path]:
    try:
        listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return
    for line in listing.splitlines():
        if line.strip().startswith(NAME) and "=>" in line:
            yield Path(line.split("=>", 1)[1].strip())


def _fault(path: Path) -> str | None:
    """Why this path is no library for this machine, in a few words; None if it is one."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else "not there"
    except IsADirectoryError:
        return "a directory"
    except OSError as error:
        return str(error.strerror).lower()
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return "no ELF library"
    machine = MACHINES.get(int.from_bytes(head[18:20], "little"), "another machine")
    here = platform.machine()
    return None if machine == here else f"built for {machine}, this is {here}"
