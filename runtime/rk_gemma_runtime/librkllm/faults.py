"""Why a file cannot be used as librkllmrt.so here, and what to do."""

from __future__ import annotations

import os
import platform
import re
import stat
import struct
from typing import TYPE_CHECKING, BinaryIO

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm.elf import BadElf, Elf, read_elf

if TYPE_CHECKING:
    from pathlib import Path

NAME = "librkllmrt.so"
# How files begin that people have in place of the library.
BEGINNINGS = (
    (b"version https://git-lfs", "a git-LFS pointer, not the file; run git lfs pull, or download the real file"),
    (b"!<arch>\n", "a static archive (.a), which cannot be loaded; use the .so"),
    (b"\x1f\x8b", "a gzip archive; unpack it and name the .so inside"),
    (b"PK\x03\x04", "a zip archive; unpack it and name the .so inside"),
)
PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
# Where Rockchip keeps its libraries for Linux.
FOLDERS = {"aarch64": "aarch64", "armv7l": "armhf"}
ANDROID = {"liblog.so", "libandroid.so", "libc.so"}  # glibc's has a number behind .so


def fault(path: Path, what: str, reason: NpuReason = NpuReason.BAD_LIBRARY) -> LibraryError:
    """Make the error for this file."""
    return LibraryError(f"{path}: {what}", reason)


def open_file(path: Path) -> BinaryIO:
    """Open an ordinary file. Never blocks. Raises LibraryError."""
    try:
        # Opening a FIFO without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise fault(path, _absent(path), NpuReason.NO_LIBRARY) from None
    except OSError as error:
        raise fault(path, _unreadable(error)) from None
    except ValueError:  # a NUL in the name
        raise fault(path, "not a file name", NpuReason.NO_LIBRARY) from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise fault(path, _directory(path) if stat.S_ISDIR(mode) else "not an ordinary file")


def read_library(path: Path, file: BinaryIO) -> Elf:
    """Read what the file says about itself, whichever machine it is for. Raises LibraryError."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise fault(path, "an empty file; copy it again")
    head = file.read(512)
    if head[:4] != b"\x7fELF":
        known = next((words for start, words in BEGINNINGS if head.startswith(start)), None)
        page = "a web page, not the library; download the file itself" if PAGE.match(head) else None
        raise fault(path, known or page or "not an ELF file, so no library")
    try:
        return read_elf(file, size)
    except BadElf as error:
        raise fault(path, str(error)) from error
    except OSError as error:
        raise fault(path, _unreadable(error)) from None


def obstacle(path: Path, elf: Elf) -> LibraryError | None:
    """Find why this library cannot be loaded here, as far as the file itself tells; None if nothing speaks against
    it."""
    here = machine_here()
    if ANDROID & set(elf.needed):
        return fault(path, "built for Android; use the one for Linux")
    bits = 8 * struct.calcsize("P")
    if (elf.machine, elf.bits) != (here, bits):
        use = f"; use the one from librkllm_api/{FOLDERS[here]}/" if here in FOLDERS else ""
        width = f" ({elf.bits} bit)" if elf.bits != bits else ""
        return fault(path, f"built for {elf.machine}{width}, this is {here}{use}")
    has = _glibc()
    wanted = [v.removeprefix("GLIBC_") for _, v in elf.versions if re.fullmatch(r"GLIBC_\d+(\.\d+)+", v)]
    newest = max(wanted, key=_numbers, default="0")
    if has and _numbers(newest) > _numbers(has):
        return fault(path, f"needs glibc {newest}, this system has {has}", NpuReason.GLIBC_TOO_OLD)
    return None


def machine_here() -> str:
    """Return the machine that this process can load libraries for: a 32-bit Python on a 64-bit kernel takes 32-bit
    ones."""
    machine = platform.machine()
    if struct.calcsize("P") == 4:
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def _absent(path: Path) -> str:
    return f"a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "not there"


def _directory(path: Path) -> str:
    inside = path / NAME
    return f"a directory; give the file inside it: {inside}" if inside.is_file() else f"a directory without {NAME}"


def _unreadable(error: OSError) -> str:
    words = str(error.strerror or error).lower()
    return f"{words}; make it readable for this user" if isinstance(error, PermissionError) else words


def _glibc() -> str:
    """Return the version of the running glibc, or "" if there is another C library."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ").strip()
    except (OSError, ValueError):
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
