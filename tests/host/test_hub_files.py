"""Files of the test hub: pointers, pages, ranges, links that expire, and a file of any size that exists nowhere."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hubask import CARD, MODEL, NAME, SIZE, ask, gemma, link_to, whole
from hubcontent import BLOCK, LargeFile, OnDisk
from hubrepo import Repo

if TYPE_CHECKING:
    from pathlib import Path

    from hubserver import HubServer

client = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed; `make check` installs it")


class TestFiles:
    def test_an_lfs_file_is_a_pointer_in_raw(self, hub: HubServer) -> None:
        repo = hub.add(gemma())
        oid = repo.file(MODEL).sha256
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {SIZE}\n"
        assert ask(hub.url, f"/{NAME}/raw/main/{MODEL}").body == text.encode()
        assert ask(hub.url, f"/{NAME}/raw/main/README.md").body == CARD

    @pytest.mark.parametrize("path", ["", f"/blob/main/{MODEL}", "/tree/main", "/tree/main/sub"])
    def test_pages_for_people(self, hub: HubServer, path: str) -> None:
        hub.add(gemma())
        answer = ask(hub.url, f"/{NAME}{path}")
        assert answer.status == 200 and answer.body.startswith(b"<!doctype html>")

    @pytest.mark.parametrize("path", [f"/{NAME}/resolve", f"/{NAME}/else/main/a", "/api/datasets/o/d", "/"])
    def test_other_paths(self, hub: HubServer, path: str) -> None:
        hub.add(gemma())
        assert ask(hub.url, path).status in (401, 404)

    @pytest.mark.parametrize("where", ["hub", "cdn"])
    @pytest.mark.parametrize(
        ("text", "status", "span"),
        [
            (None, 200, (0, 10)), ("bytes=0-", 206, (0, 10)), ("bytes=3-", 206, (3, 10)), ("bytes=3-5", 206, (3, 6)),
            ("bytes=3-99", 206, (3, 10)), ("bytes=-4", 206, (6, 10)), ("bytes=-40", 206, (0, 10)),
            ("bytes=10-", 416, (0, 0)), ("bytes=99-100", 416, (0, 0)), ("bytes=-0", 416, (0, 0)),
            ("bytes=5-3", 200, (0, 10)), ("bytes=0-1,3-4", 200, (0, 10)), ("bytes=-", 200, (0, 10)),
            ("lines=1-2", 200, (0, 10)),
        ],
    )  # fmt: skip
    def test_ranges(self, hub: HubServer, where: str, text: str | None, status: int, span: tuple[int, int]) -> None:
        hub.add(Repo(NAME, {MODEL: b"0123456789", "a.txt": b"0123456789"}))
        url, path = (hub.cdn_url, link_to(hub)) if where == "cdn" else (hub.url, f"/{NAME}/resolve/main/a.txt")
        answer = ask(url, path, **({"Range": text} if text else {}))
        assert (answer.status, answer.body) == (status, b"0123456789"[slice(*span)])
        told = {206: f"bytes {span[0]}-{span[1] - 1}/10", 416: "bytes */10"}.get(status)
        assert answer.headers.get("content-range") == told and answer.headers["accept-ranges"] == "bytes"
        assert [hub.requests, hub.cdn_requests][where == "cdn"][-1].range == text

    def test_a_range_of_another_file_than_meant(self, hub: HubServer) -> None:
        repo = hub.add(gemma())
        etag = f'"{repo.file(MODEL).sha256}"'
        assert ask(hub.cdn_url, link_to(hub), Range="bytes=5-9", If_Range=etag).status == 206
        assert ask(hub.cdn_url, link_to(hub), Range="bytes=5-9", If_Range='"other"').status == 200

    @pytest.mark.parametrize("file", ["README.md", MODEL])
    def test_head_tells_what_get_does(self, hub: HubServer, file: str) -> None:
        repo = hub.add(gemma())
        head, get = (ask(hub.url, f"/{NAME}/resolve/main/{file}", method).headers for method in ("HEAD", "GET"))
        for changing in ("date", "location", "content-length"):
            head.pop(changing, None), get.pop(changing, None)
        assert head == get and head["x-repo-commit"] == repo.commit().sha
        if file == MODEL:
            assert head["x-linked-size"] == str(SIZE)
            assert head["x-linked-etag"] == f'"{repo.file(MODEL).sha256}"'
        else:
            assert head["etag"] == f'"{repo.file(file).git_oid}"'

    def test_links_expire(self, hub: HubServer) -> None:
        hub.add(gemma())
        link = link_to(hub)
        assert ask(hub.cdn_url, link).status == 200
        hub.expire_links()
        assert ask(hub.cdn_url, link).status == 403
        assert ask(hub.cdn_url, link_to(hub)).status == 200
        assert ask(hub.cdn_url, link_to(hub).replace("Signature=", "Signature=0")).status == 403
        assert ask(hub.cdn_url, "/").status == 403


class TestContents:
    def test_ten_gigabytes_that_do_not_exist(self, hub: HubServer) -> None:
        size = 10_000_000_000
        hub.add(Repo(NAME, {MODEL: LargeFile(size, head=b"RKLLM", tail=b"trailer")}))
        found = client.HfApi(hub.url, token=False).get_paths_info(NAME, [MODEL])
        assert found[0].size == size
        assert ask(hub.cdn_url, link_to(hub), Range="bytes=0-6").body[:5] == b"RKLLM"
        tail = ask(hub.cdn_url, link_to(hub), Range="bytes=-20")
        assert tail.body.endswith(b"trailer") and len(tail.body) == 20
        assert tail.headers["content-range"] == f"bytes {size - 20}-{size - 1}/{size}"

    @pytest.mark.parametrize("size", [0, 1, 9, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
    def test_ranges_are_parts_of_one_file(self, size: int) -> None:
        content = LargeFile(size, head=b"head", tail=b"tail" * (size > 3))
        data = whole(content)
        assert len(data) == size and data == whole(LargeFile(size, head=b"head", tail=b"tail" * (size > 3)))
        for start in (0, 1, size // 2, max(0, size - 1)):
            assert b"".join(content.read(start, start + BLOCK)) == data[start : start + BLOCK]
        assert content.sha256 == hashlib.sha256(data).hexdigest()

    def test_blocks_and_seeds_differ(self) -> None:
        data = whole(LargeFile(2 * BLOCK))
        assert data[:BLOCK] != data[BLOCK:] and data != whole(LargeFile(2 * BLOCK, seed="other"))

    def test_hashes_are_those_of_git_and_sha256(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"hello\n")
        content = OnDisk(tmp_path / "file")
        assert content.git_oid == "ce013625030ba8dba906f756967f9e9ca394464a"
        assert content.sha256 == hashlib.sha256(b"hello\n").hexdigest()
