"""Other programs that have the NPU open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.reader import quote

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

USERS = "rk-gemma/users"


@dataclass(frozen=True)
class User:
    """A process: its number, and the name that the kernel has for it."""

    pid: int
    name: str


@dataclass(frozen=True)
class Users:
    """`unseen`: processes of others, whose files this user may not see."""

    seen: tuple[User, ...]
    unseen: int


def read(reader: Reader) -> Users | None:
    """Read the programs that have the NPU open; None if they were not looked for."""
    return reader.value(USERS, _users, needed=False)


def _users(text: str) -> Users:
    """Parse `PID NAME` per process, `unseen N` for the rest."""
    seen, unseen = [], 0
    for line in text.splitlines():
        first, _, rest = line.partition(" ")
        if first == "unseen" and re.fullmatch(r"[0-9]{1,9}", rest):
            unseen = int(rest)
        elif re.fullmatch(r"[0-9]{1,9}", first) and rest.strip():
            seen.append(User(int(first), rest.strip()[:40]))
        else:
            raise ValueError(f"{quote(line)} is not a process")
    return Users(tuple(seen), unseen)
