"""A wheel of rkllm-toolkit: what its name says, held against what is inside."""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from dataclasses import dataclass
from email import message_from_string
from typing import TYPE_CHECKING

from rk_gemma.toolkit.errors import WheelError

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

PROJECT = "rkllm-toolkit"
NAME = re.compile(r"(?P<project>[A-Za-z0-9_.]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)"
                  r"-(?P<machine>[^-]+)\.whl")  # fmt: skip
CPYTHON = re.compile(r"cp3(\d{1,2})")
LIMIT = 1 << 20  # of a text inside; real ones have a few kB
HEADS = {
    b"version https://git-lfs": "a Git LFS pointer; download the file itself (the page's Download button, /resolve/)",
    b"<": "a web page; download the file itself (the page's Download or Raw button)",
    b"{": "JSON, such as a server's error; download it again",
}


@dataclass(frozen=True)
class Wheel:
    """`python` as (3, 10), `machine` as the tag has it (linux_x86_64). `requires` are its own dependencies."""

    path: Path
    version: str
    python: tuple[int, int]
    machine: str
    requires: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The interpreter's tag, as cp310."""
        return f"cp{self.python[0]}{self.python[1]}"

    @classmethod
    def open(cls, path: Path) -> Wheel:
        """Read name and metadata. Raises WheelError."""
        meta, tags = _inside(path)
        project = re.sub(r"[-_.]+", "-", str(meta["Name"])).lower()
        if project != PROJECT:
            raise WheelError(f"{path}: a wheel of {project}, not of {PROJECT}; give rkllm_toolkit-*.whl")
        inside = _tag(path, tags)
        version = str(meta["Version"])
        _check_name(path, version, inside)
        python, _, machine = inside
        found = CPYTHON.fullmatch(python)
        if found is None:
            raise WheelError(f"{path}: made for {python}, not for CPython 3")
        return cls(path, version, (3, int(found[1])), machine, tuple(meta.get_all("Requires-Dist") or ()))


def _inside(path: Path) -> tuple[Message, list[str]]:
    """Return METADATA and the tags of WHEEL."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            home = next((n.rpartition("/")[0] for n in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)), "")
            if not home or f"{home}/WHEEL" not in names:
                raise WheelError(f"{path}: an archive, not a Python wheel; give rkllm_toolkit-*.whl")
            meta, wheel = (_text(archive, f"{home}/{name}") for name in ("METADATA", "WHEEL"))
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, RuntimeError) as error:
        raise WheelError(f"{path}: {_why(path, error)}") from error
    if damaged:
        raise WheelError(f"{path}: {damaged} inside is damaged; download it again")
    return message_from_string(meta), list(map(str, message_from_string(wheel).get_all("Tag") or ()))


def _text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        return file.read(LIMIT).decode("utf-8", errors="replace")


def _why(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}; give a file rkllm_toolkit-*.whl"
    with path.open("rb") as file:
        head = file.read(64)
    kind = next((words for start, words in HEADS.items() if head.lstrip().startswith(start)), "")
    if kind:
        return f"not a wheel: {kind}"
    return "not a wheel: empty" if not head else "not a wheel, or cut short; download it again"


def _tag(path: Path, tags: list[str]) -> tuple[str, str, str]:
    parts = tags[0].split("-") if tags else []
    if len(parts) != 3:
        raise WheelError(f"{path}: its WHEEL file names no tag; download it again")
    return parts[0], parts[1], parts[2]


def _check_name(path: Path, version: str, inside: tuple[str, str, str]) -> None:
    """pip reads a wheel's name: one that says other than the content is refused there too, in more words."""
    named = NAME.fullmatch(path.name)
    if named and (named["version"], named["python"], named["machine"]) == (version, inside[0], inside[2]):
        return
    right = f"rkllm_toolkit-{version}-{'-'.join(inside)}.whl"
    raise WheelError(f"{path}: renamed; inside it is {right}: give it that name again")
