"""File answers of the test hub: small files, LFS redirects with signed links, ranges, pointers, pages."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from hubcontent import Content, Stored
from hubreply import Asked, Reply, refusal
from hubrepo import Commit, Repo, pointer

if TYPE_CHECKING:
    from collections.abc import Mapping

BINARY = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
XET_TOKEN = "{hub}/api/models/{repo}/xet-read-token/{sha}"


class Link(NamedTuple):
    """What a signed link of the CDN stands for."""

    path: str
    repo: str
    file: str
    content: Content
    expires: float


class Links:
    """Signed links that expire. The clock is the machine's, and a test can put it forward."""

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self._ahead = 0.0
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()

    def issue(self, repo: str, file: str, content: Content) -> str:
        """Return the path and query of a new link."""
        link = Link(f"/repos/{quote(repo)}/{content.sha256}", repo, file, content, self._now() + self.lifetime)
        with self._lock:
            text = f"{link.path} {link.expires} {len(self._links)}"
            signature = hmac.new(b"test hub", text.encode(), hashlib.sha256).hexdigest()
            self._links[signature] = link
        name = quote(file.rpartition("/")[2])
        query = {"response-content-disposition": f"attachment; filename*=UTF-8''{name};",
                 "Expires": int(link.expires), "Signature": signature, "Key-Pair-Id": "TEST"}  # fmt: skip
        return f"{link.path}?{urlencode(query)}"

    def find(self, asked: Asked) -> Link | None:
        """Return the link that a request has the signature of; None if it is unknown or has expired."""
        link = self._links.get(asked.query.get("Signature", [""])[0])
        return link if link is not None and link.path == asked.path and self._now() < link.expires else None

    def pass_time(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += seconds

    def _now(self) -> float:
        return time.time() + self._ahead


@dataclass(frozen=True)
class FileAnswers:
    """Answers to /resolve, /raw and /blob of a file that exists and may be read."""

    repo: Repo
    commit: Commit
    file: str
    hub: str

    @property
    def content(self) -> Content:
        return self.commit.files[self.file]

    def resolve(self, asked: Asked, links: Links, cdn: str, mirror: bool) -> Reply:
        """Return a small file itself and a redirect for an LFS file; a mirror answers HEAD without one."""
        if not self.repo.is_lfs(self.file):
            headers = {"X-Repo-Commit": self.commit.sha, "Content-Type": TEXT}
            return ranged(asked, self.content, self.content.git_oid, headers)
        headers = self._linked()
        if mirror:
            return Reply(200, headers, self.content)
        location = cdn + links.issue(self.repo.name, self.file, self.content)
        text = f"Found. Redirecting to {location}".encode()
        return Reply(302, {**headers, "Location": location, "Content-Type": TEXT}, Stored(text))

    def raw(self, asked: Asked) -> Reply:
        """Return what git holds: for an LFS file, its pointer."""
        content = Stored(pointer(self.content)) if self.repo.is_lfs(self.file) else self.content
        return ranged(asked, content, content.git_oid, {"X-Repo-Commit": self.commit.sha, "Content-Type": TEXT})

    def _linked(self) -> dict[str, str]:
        etag = f'"{self.content.sha256}"'
        headers = {"X-Repo-Commit": self.commit.sha, "X-Linked-Size": str(self.content.size), "X-Linked-ETag": etag,
                   "ETag": etag, "Accept-Ranges": "bytes"}  # fmt: skip
        if self.repo.xet:
            token = XET_TOKEN.format(hub=self.hub, repo=self.repo.name, sha=self.commit.sha)
            headers |= {"X-Xet-Hash": self.content.sha256, "Link": f'<{token}>; rel="xet-auth"'}
        return headers


def from_cdn(asked: Asked, link: Link | None) -> Reply:
    """Return bytes of an LFS file, or 403 for a link that is not valid any more."""
    if link is None:
        body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        return Reply(403, {"Content-Type": "application/xml"}, Stored(body.encode()))
    return ranged(asked, link.content, link.content.sha256, {"Content-Type": BINARY})


def ranged(asked: Asked, content: Content, etag: str, headers: Mapping[str, str]) -> Reply:
    """Return the whole content, or the one range that is asked for of this very content."""
    told = {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    span = _span(asked.range, content.size)
    if span is None or asked.headers.get("if-range", told["ETag"]) != told["ETag"]:
        return Reply(200, told, content)
    start, stop = span
    if start >= stop:
        return Reply(416, {**told, "Content-Range": f"bytes */{content.size}"}, content, 0, 0)
    return Reply(206, {**told, "Content-Range": f"bytes {start}-{stop - 1}/{content.size}"}, content, start, stop)


def page(title: str) -> Reply:
    """Return a page for people."""
    text = f"<!doctype html>\n<html><head><title>{title}</title></head><body>{title}</body></html>\n"
    return Reply(200, {"Content-Type": "text/html; charset=utf-8"}, Stored(text.encode()))


def missing_file(repo: Repo, commit: Commit) -> Reply:
    """Return 404 for a file that a commit lacks; the client keeps the commit to remember it."""
    return refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit.sha})


def _span(text: str | None, size: int) -> tuple[int, int] | None:
    """Return start and stop of a range, start >= stop if it cannot be satisfied, None if there is not exactly one."""
    found = RANGE.fullmatch(text or "")
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        return max(0, size - int(last)), size if int(last) else 0
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1 if last else size)
