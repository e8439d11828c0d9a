"""What can go wrong with an answer of the test hub."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from hubcontent import Changed, Given, Stored, content_of
from hubreply import Pause, Reply, refusal
from hubrepo import pointer

if TYPE_CHECKING:
    from collections.abc import Callable

RATE_POLICY = '"fixed window";"api";q=500;w=300'


class Effect(Protocol):
    """A change of one answer."""

    def __call__(self, reply: Reply) -> Reply: ...


@dataclass(frozen=True)
class Status:
    """Another status in place of the answer; `code` and `message` are X-Error-Code and X-Error-Message."""

    status: int
    code: str | None = None
    message: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, reply: Reply) -> Reply:
        return refusal(self.status, self.code, self.message, **self.headers)


def rate_limited(seconds: int = 0, form: Literal["Retry-After", "RateLimit"] = "Retry-After") -> Status:
    """Return 429 with the time to wait in one of the hub's two forms."""
    new = {"RateLimit": f'"api";r=0;t={seconds}', "RateLimit-Policy": RATE_POLICY}
    headers = {"Retry-After": str(seconds)} if form == "Retry-After" else new
    return Status(429, message="You have reached your rate limit.", headers=headers)


@dataclass(frozen=True)
class Body:
    """Status 200 and another body in place of the answer, such as a sign-in page."""

    given: Given
    content_type: str = "text/html; charset=utf-8"

    def __call__(self, reply: Reply) -> Reply:
        return Reply(200, {"Content-Type": self.content_type}, content_of(self.given))


@dataclass(frozen=True)
class LfsPointer:
    """The LFS pointer with status 200 in place of the bytes."""

    def __call__(self, reply: Reply) -> Reply:
        return Reply(200, {"Content-Type": "text/plain; charset=utf-8"}, content_of(pointer(reply.content)))


@dataclass(frozen=True)
class Cut:
    """End the connection after exactly `after` bytes of this answer's body, by RST or by FIN."""

    after: int
    how: Literal["rst", "fin"] = "rst"

    def __call__(self, reply: Reply) -> Reply:
        reply.cut = (self.after, self.how)
        return reply


@dataclass(frozen=True)
class WrongLength:
    """State a Content-Length that is `by` bytes too large, or too small if negative."""

    by: int

    def __call__(self, reply: Reply) -> Reply:
        reply.length_error = self.by
        return reply


@dataclass(frozen=True)
class WrongBytes:
    """Turn over the byte at offset `at` of the file: the size stays right."""

    at: int

    def __call__(self, reply: Reply) -> Reply:
        reply.content = Changed(reply.content, self.at)
        return reply


@dataclass(frozen=True)
class IgnoreRange:
    """Answer a range with 200 and the whole file."""

    def __call__(self, reply: Reply) -> Reply:
        if reply.status in (206, 416):
            reply.status, reply.start, reply.stop = 200, 0, None
            reply.headers.pop("Content-Range", None)
        return reply


@dataclass(frozen=True)
class Header:
    """Set a header, or leave it out if `value` is None."""

    name: str
    value: str | None = None

    def __call__(self, reply: Reply) -> Reply:
        if self.value is None:
            reply.headers.pop(self.name, None)
        else:
            reply.headers[self.name] = self.value
        return reply


@dataclass(frozen=True)
class Chunked:
    """Send the body in chunks without a Content-Length, compressed as gzip if asked for, as the hub sends text."""

    gzip: bool = False

    def __call__(self, reply: Reply) -> Reply:
        reply.chunked = True
        if self.gzip:
            packed = gzip.compress(b"".join(reply.content.read(reply.start, reply.stop)), mtime=0)
            reply.content, reply.start, reply.stop = Stored(packed), 0, None
            reply.headers["Content-Encoding"] = "gzip"
        return reply


@dataclass(frozen=True)
class Drip:
    """Send the body slowly."""

    bytes_per_second: float

    def __call__(self, reply: Reply) -> Reply:
        reply.bytes_per_second = self.bytes_per_second
        return reply


@dataclass(frozen=True)
class Hold:
    """Stop in the body at `pause`, whose events tell the test and are set by it."""

    pause: Pause

    def __call__(self, reply: Reply) -> Reply:
        reply.pause = self.pause
        return reply


@dataclass(frozen=True)
class Then:
    """Call a function before the answer is sent: `Then(lambda: repo.put(...))`, `Then(hub.expire_links)`."""

    function: Callable[[], object]

    def __call__(self, reply: Reply) -> Reply:
        self.function()
        return reply


OF_BODY = (Body, LfsPointer, Cut, WrongLength, WrongBytes, IgnoreRange, Chunked, Drip, Hold)
