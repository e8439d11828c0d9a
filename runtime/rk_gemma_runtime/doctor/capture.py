"""A capture: the files that were read of a board, as a tar, without what is private."""

from __future__ import annotations

import io
import os
import pwd
import re
import socket
import tarfile
import tempfile
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.readers.log import LOG, pick_lines
from rk_gemma_runtime.doctor.root import ABSENT, FAULTS, LIMIT, OWN
from rk_gemma_runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rk_gemma_runtime.doctor.root import Root

MOST_FILES = 4096
MOST_BYTES = 64 << 20
PERSONS_FROM = 1000  # user ids
# Serial numbers in /proc/cpuinfo; hardware, IPv4 and IPv6 addresses. A kernel address has no colons or dots.
SERIAL = re.compile(rb"^(Serial|serial-number)\b.*\n?", re.MULTILINE)
PRIVATE = (
    re.compile(rb"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b"),
    re.compile(rb"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b"),
    re.compile(rb"\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b"),
    re.compile(rb"/home/[^/\s]+"),
    re.compile(rb"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\b"),
    re.compile(rb"\bserial(?:no|[-_ ]?number)?[=:]\s*\S+", re.IGNORECASE),
)
GONE = b"(removed)"
SHORTEST_NAME = 2  # one letter would be found everywhere


def write(root: Root, target: Path) -> None:
    """Write what `root` has read so far. The same readings give the same bytes. Raises UsageError for a target that
    exists, and OSError; then nothing is left behind."""
    if os.path.lexists(target):
        raise UsageError(f"{target}: exists; name a new file")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: cannot be written: no such directory")
    fd, fresh = tempfile.mkstemp(prefix=f".{target.name[:50]}.", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_tar(dict(_members(root))))
            file.flush()
            os.fsync(file.fileno())
        _place(fresh, target)
    except BaseException:
        os.unlink(fresh)
        raise


def _place(fresh: str, target: Path) -> None:
    """Put the file under its name, unless that has been taken in the meantime."""
    try:
        os.link(fresh, target)
    except FileExistsError:
        raise UsageError(f"{target}: exists; name a new file") from None
    except OSError:  # a file system without links, as on many cards
        os.rename(fresh, target)
        return
    os.unlink(fresh)


def _members(root: Root) -> Iterable[tuple[str, bytes]]:
    names = _names()
    for name, data in root.contents.items():
        if name == LOG:  # a log that was not read here may be a whole one
            data = "".join(f"{line}\n" for line in pick_lines(data.decode("utf-8", errors="replace"))).encode()
        # What the kernel writes holds no names of people; a board may be called as its user is.
        yield name, scrub(data, names if name.startswith(OWN) else ())
    told = {name: why for name, why in root.faults.items() if why != ABSENT}
    if told:
        lines = (f"{name}\t{why}\n" for name, why in sorted(told.items()))
        yield FAULTS, scrub("".join(lines).encode("utf-8", errors="replace"), names)


def scrub(data: bytes, names: tuple[str, ...] = ()) -> bytes:
    """Remove serial numbers, addresses of networks, home directories and these names."""
    data = SERIAL.sub(b"", data)
    for pattern in PRIVATE:
        data = pattern.sub(GONE, data)
    for name in names:
        data = re.sub(rb"(?<![\w])" + re.escape(name.encode()) + rb"(?![\w])", GONE, data)
    return data


def _names() -> tuple[str, ...]:
    """Collect the names of this host and of the people on it."""
    host = socket.gethostname()
    people = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid >= PERSONS_FROM and entry.pw_name != "nobody"]
    people += [os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")]
    known = {host, host.partition(".")[0], *people} - {"root", "localhost"}
    return tuple(sorted((name for name in known if len(name) >= SHORTEST_NAME), key=len, reverse=True))


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(members.items()):
            member = tarfile.TarInfo(name)  # no time, no owner: zeros
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpack(path: Path, directory: Path) -> None:
    """Unpack a capture's files, checked: only plain files inside the directory. Raises InputError."""
    try:
        with tarfile.open(path, "r:") as tar:
            _unpack(tar, path, directory)
    except tarfile.TarError as error:
        raise InputError(f"{path}: not a capture of `rk-gemma doctor --capture` ({error})") from error
    except (OSError, EOFError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as a capture: {words}") from error


def _unpack(tar: tarfile.TarFile, path: Path, directory: Path) -> None:
    total = 0
    for count, member in enumerate(tar):
        total += member.size
        if count >= MOST_FILES or total > MOST_BYTES or not 0 <= member.size <= LIMIT:
            raise InputError(f"{path}: too large for a capture")
        if member.isdir():
            continue
        parts = [part for part in member.name.split("/") if part not in {"", "."}]
        if not member.isreg() or not parts or ".." in parts or not member.name.isprintable():
            raise InputError(f"{path}: {member.name[:80]!r} has no place in a capture")
        file = tar.extractfile(member)
        place = directory.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read() if file else b"")
