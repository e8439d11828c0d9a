"""Asking the test hub by plain HTTP, and the repositories that its tests publish."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any, NamedTuple

from hubcontent import Content, LargeFile
from hubrepo import Repo

if TYPE_CHECKING:
    from hubserver import HubServer

NAME = "c01zaut/gemma-2-9b-it-rk3588-1.1.1"
MODEL = "gemma-2-9b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm"
SIZE = 200_000
BRANCH = "w8a8_g512/toolkit v1.1.1"
CARD = b"---\nlicense: gemma\nbase_model: google/gemma-2-9b-it\ntags: [rkllm]\ndate: 2025-01-02\n---\n# Gemma\n"
SMALL = {"README.md": CARD, "config.json": b'{"model_type": "gemma2"}', "sub/a b.txt": b"a", "sub/deep/b.txt": b""}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def gemma(**changes: Any) -> Repo:
    """Return a repository of the public kind, with one more model on a branch."""
    files = {**SMALL, MODEL: LargeFile(SIZE, head=b"RKLLM", tail=b"1.1.1")}
    given = {"name": NAME, "files": files, "branches": {BRANCH: {"x.rkllm": LargeFile(9)}}, "tags": {"v1": "main"}}
    return Repo(**{**given, **changes})


def whole(content: Content) -> bytes:
    """Return all bytes of a content."""
    return b"".join(content.read())


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """Send one request; a redirect is not followed. An underscore in a header's name stands for a hyphen."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        told = {name.lower(): text for name, text in response.headers.items()}
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


def link_to(hub: HubServer, file: str = MODEL) -> str:
    """Return a signed link of the CDN, as path and query."""
    return ask(hub.url, f"/{NAME}/resolve/main/{file}").headers["location"].removeprefix(hub.cdn_url)


def read(hub: HubServer, **headers: str) -> tuple[bytes, Exception | None]:
    """Return the bytes of the model that arrive from the CDN, and the error that ended them."""
    connection = http.client.HTTPConnection(hub.cdn_url.removeprefix("http://"), timeout=60)
    connection.request("GET", link_to(hub), headers=headers)
    got = bytearray()
    try:
        response = connection.getresponse()
        while piece := response.read1(1 << 16):
            got += piece
        return bytes(got), None
    except (OSError, http.client.HTTPException) as error:
        return bytes(got), error
    finally:
        connection.close()
