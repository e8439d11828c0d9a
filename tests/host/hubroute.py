"""Which endpoint of the hub a path names, and of which repository, revision and file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from hubreply import Asked

API = "/api/models/"
ENDPOINTS = ("revision", "tree", "paths-info", "refs", "auth-check")
FILES = ("resolve", "raw", "blob", "tree")


@dataclass(frozen=True)
class Route:
    """A path, read. `where` is "page" for a page for people and "unknown" for a path that the hub lacks."""

    where: str
    repo: str = ""
    revision: str = "main"
    file: str = ""
    prefix: str = "/"

    def renamed(self, asked: Asked, name: str) -> str:
        """Return the relative address of the same thing under a new name."""
        query = "&".join(f"{key}={value}" for key, values in asked.query.items() for value in values)
        rest = asked.path.removeprefix(self.prefix + self.repo)
        return self.prefix + name + rest + (f"?{query}" if query else "")


def route(asked: Asked) -> Route:
    """Read a path. It is split before its escapes are read, because a branch may hold a slash."""
    if asked.path.startswith(API):
        return _api(asked.path[len(API) :].split("/"))
    repo, rest = _repo(asked.path.strip("/").split("/"), FILES)
    if not rest:
        return Route("page", repo)
    if rest[0] not in FILES or len(rest) < 2:
        return Route("unknown", repo)
    where = "page" if rest[0] == "tree" else rest[0]
    return Route(where, repo, unquote(rest[1]), _joined(rest[2:]))


def _api(parts: list[str]) -> Route:
    repo, rest = _repo(parts, ENDPOINTS)
    if not rest:
        return Route("info", repo, prefix=API)
    if rest[0] not in ENDPOINTS:
        return Route("unknown", repo, prefix=API)
    return Route(rest[0], repo, unquote(rest[1]) if len(rest) > 1 else "main", _joined(rest[2:]), API)


def _repo(parts: list[str], endpoints: tuple[str, ...]) -> tuple[str, list[str]]:
    """Split off the repository: owner and name, or a name alone as the oldest ones have."""
    count = 1 if len(parts) < 2 or parts[1] in endpoints else 2
    return unquote("/".join(parts[:count])), parts[count:]


def _joined(parts: list[str]) -> str:
    return "/".join(unquote(part) for part in parts)
