"""A request to the test hub and the answer to it, as values."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

from hubcontent import Content, Stored, content_of


@dataclass(frozen=True)
class Asked:
    """A request as it came; header names are in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")


class Pause:
    """A place in a body where the server stops until the test goes on: no clock is involved."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.reached = threading.Event()
        self.go = threading.Event()


@dataclass
class Reply:
    """An answer: status, headers, a range of a content, and what goes wrong while it is sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=lambda: Stored(b""))
    start: int = 0
    stop: int | None = None
    length_error: int = 0
    cut: tuple[int, Literal["rst", "fin"]] | None = None
    bytes_per_second: float | None = None
    chunked: bool = False
    pause: Pause | None = None

    @property
    def length(self) -> int:
        return (self.content.size if self.stop is None else self.stop) - self.start


def refusal(status: int, code: str | None = None, message: str | None = None, **headers: str) -> Reply:
    """Return an error in the hub's form."""
    told = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "text/plain; charset=utf-8"}
    body: Content = content_of(message or "")
    return Reply(status, {name: value for name, value in {**told, **headers}.items() if value is not None}, body)
