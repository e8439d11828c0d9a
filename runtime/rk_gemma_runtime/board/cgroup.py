"""Limits of memory that a control group sets, in both versions, from this process's group up to the root."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rk_gemma_runtime.board.facts import Memory

    Read = Callable[[str], str | None]

GROUPS = "proc/self/cgroup"
PLACE = "sys/fs/cgroup"
UNLIMITED = 1 << 60  # version 1 writes a number close to 2^63 for it
MOST_LEVELS = 32


@dataclass(frozen=True)
class Level:
    """A group with a limit, in bytes. `used` without what the kernel can drop; `swap` free of the group's own limit,
    None without one. `where`: the file of the limit."""

    limit: int
    used: int
    swap: int | None
    where: str

    @property
    def free(self) -> int:
        """What is left of it."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True)
class _Names:
    """The files of a version. `high` may be ""; `total` goes before the names in memory.stat that count children."""

    limits: tuple[str, ...]
    used: str
    swap_limit: str
    swap_used: str
    total: str = ""


V2 = _Names(("memory.max", "memory.high"), "memory.current", "memory.swap.max", "memory.swap.current")
V1 = _Names(
    ("memory.limit_in_bytes",), "memory.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes",
    "total_",
)  # fmt: skip


def levels(read: Read) -> list[Level]:
    """List the groups that limit this process; `read` gives a file's text by its name without the leading slash, or
    None."""
    found = []
    for names, place, path in _groups(read(GROUPS) or ""):
        for folder in _folders(place, path):
            level = _level(read, names, folder)
            if level is not None and level not in found:
                found.append(level)
    return found


def limited(memory: Memory, groups: list[Level]) -> Memory:
    """Return the memory that this process may use of a machine's. Nothing is guessed where that is not known."""
    if not groups:
        return memory
    swaps = [level.swap for level in groups if level.swap is not None]
    limit = min(level.limit for level in groups)
    return replace(
        memory,
        available=min([level.free for level in groups] + ([] if memory.available is None else [memory.available])),
        swap_free=None if memory.swap_free is None else min([memory.swap_free, *swaps]),
        limit=limit if memory.total is None or limit < memory.total else None,
    )


def _groups(text: str) -> Iterator[tuple[_Names, str, str]]:
    """Parse `NUMBER:CONTROLLERS:PATH`; of a container's own view the path may be "/" or lie outside."""
    paths = {"": "/", "memory": "/"}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(","):
            if name in paths and path.startswith("/"):
                paths[name] = path
    for place in (PLACE, f"{PLACE}/unified"):
        yield V2, place, paths[""]
    yield V1, f"{PLACE}/memory", paths["memory"]


def _folders(place: str, path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:  # outside of what is mounted here
        parts = []
    return ["/".join([place, *parts[:count]]) for count in range(min(len(parts), MOST_LEVELS) + 1)]


def _level(read: Read, names: _Names, folder: str) -> Level | None:
    found = [(limit, f"/{folder}/{name}") for name in names.limits for limit in [_number(read(f"{folder}/{name}"))]]
    known = [(limit, where) for limit, where in found if limit is not None and limit < UNLIMITED]
    if not known:
        return None
    limit, where = min(known)
    used = _number(read(f"{folder}/{names.used}")) or 0
    return Level(limit, max(0, used - _droppable(read(f"{folder}/memory.stat"), names.total)),
                 _swap(read, names, folder, limit), where)  # fmt: skip


def _droppable(stat: str | None, total: str) -> int:
    """Sum the file pages that the kernel takes back first."""
    pairs = dict(line.split(" ", 1) for line in (stat or "").splitlines() if " " in line)
    return sum(
        _number(pairs.get(f"{total}{name}", pairs.get(name))) or 0 for name in ("inactive_file", "active_file")
    )


def _swap(read: Read, names: _Names, folder: str, limit: int) -> int | None:
    most = _number(read(f"{folder}/{names.swap_limit}"))
    if most is None or most >= UNLIMITED:
        return None
    taken = _number(read(f"{folder}/{names.swap_used}")) or 0
    if names is V2:
        return max(0, most - taken)
    return max(0, most - limit)  # version 1 counts memory and swap together


def _number(text: str | None) -> int | None:
    word = (text or "").strip()
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 20 else None
