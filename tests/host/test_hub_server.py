"""The test hub (hubserver.py), asked by the real client and by plain HTTP: what it answers when all goes well."""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hubask import BRANCH, MODEL, NAME, SIZE, SMALL, ask, gemma, link_to, whole
from hubcontent import LargeFile
from hubrepo import Repo
from hubserver import HubServer

if TYPE_CHECKING:
    from pathlib import Path

client = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed; `make check` installs it")

errors = pytest.importorskip("huggingface_hub.errors")


class TestApi:
    def test_a_model_is_described(self, hub: HubServer) -> None:
        repo = hub.add(gemma())
        info = client.HfApi(hub.url, token=False).model_info(NAME, files_metadata=True)
        model = next(each for each in info.siblings if each.rfilename == MODEL)
        assert (info.id, info.sha, info.gated, info.private) == (NAME, repo.commit().sha, False, False)
        assert info.card_data["base_model"] == "google/gemma-2-9b-it" and "license:gemma" in info.tags
        assert info.config == {"model_type": "gemma2"}
        assert (model.size, model.lfs.sha256) == (
            SIZE,
            hashlib.sha256(whole(repo.file(MODEL))).hexdigest(),
        )
        assert "blobs" in hub.requests[-1].query and "hf_hub" in hub.requests[-1].user_agent

    def test_sizes_are_told_only_on_request(self, hub: HubServer) -> None:
        hub.add(gemma())
        info = client.HfApi(hub.url, token=False).model_info(NAME, revision="v1")
        assert {each.rfilename for each in info.siblings} == {*SMALL, MODEL}
        assert all(each.size is None and each.lfs is None for each in info.siblings)

    @pytest.mark.parametrize("page_size", [1, 2, 1000])
    def test_a_tree_comes_in_pages(self, hub: HubServer, page_size: int) -> None:
        hub.add(gemma())
        hub.page_size = page_size
        listed = list(client.HfApi(hub.url, token=False).list_repo_tree(NAME, recursive=True, expand=True))
        assert [each.path for each in listed] == sorted([*SMALL, MODEL, "sub", "sub/deep"])
        assert len(hub.requests) == -(-len(listed) // page_size)
        assert next(each for each in listed if each.path == MODEL).lfs.size == SIZE

    def test_a_folder_and_a_branch_have_trees_of_their_own(self, hub: HubServer) -> None:
        hub.add(gemma())
        api = client.HfApi(hub.url, token=False)
        assert [each.path for each in api.list_repo_tree(NAME, "sub")] == ["sub/a b.txt", "sub/deep"]
        assert [each.path for each in api.list_repo_tree(NAME, revision=BRANCH)] == ["x.rkllm"]
        with pytest.raises(errors.EntryNotFoundError):
            list(api.list_repo_tree(NAME, "absent"))

    def test_paths_are_looked_up(self, hub: HubServer) -> None:
        repo = hub.add(gemma())
        found = client.HfApi(hub.url, token=False).get_paths_info(NAME, [MODEL, "sub", "absent", "sub/a b.txt"])
        assert [each.path for each in found] == [MODEL, "sub", "sub/a b.txt"]
        assert found[0].lfs.sha256 == repo.file(MODEL).sha256 and found[2].size == 1

    def test_branches_and_tags_are_listed(self, hub: HubServer) -> None:
        repo = hub.add(gemma())
        refs = client.HfApi(hub.url, token=False).list_repo_refs(NAME)
        assert {each.name: each.target_commit for each in refs.branches} == {
            "main": repo.commit().sha,
            BRANCH: repo.commit(BRANCH).sha,
        }
        assert [(each.name, each.ref) for each in refs.tags] == [("v1", "refs/tags/v1")]

    @pytest.mark.parametrize("front", [b"", b"---\n: [\n---\n", b"---\nonly a line\n---\n", b"\xff\xfe"])
    def test_a_card_without_a_front_matter_that_can_be_read(self, hub: HubServer, front: bytes) -> None:
        hub.add(Repo("o/m", {"README.md": front}))
        assert client.HfApi(hub.url, token=False).model_info("o/m").card_data is None

    def test_a_name_without_an_owner(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add(Repo("gemma", {"a.txt": b"a"}))
        assert client.HfApi(hub.url, token=False).model_info("gemma").id == "gemma"
        client.hf_hub_download("gemma", "a.txt", endpoint=hub.url, cache_dir=tmp_path, token=False)


class TestDownload:
    @pytest.mark.parametrize("file", ["README.md", "sub/a b.txt", "sub/deep/b.txt", MODEL])
    def test_a_file_of_a_branch(self, hub: HubServer, tmp_path: Path, file: str) -> None:
        repo = hub.add(gemma(tokens={"hf_ok"}))
        path = client.hf_hub_download(NAME, file, endpoint=hub.url, cache_dir=tmp_path, token="hf_ok")
        content = repo.file(file)
        with open(path, "rb") as got:
            assert got.read() == whole(content)
        assert hub.requests[0].method == "HEAD" and hub.requests[0].authorization == "Bearer hf_ok"
        assert [each.authorization for each in hub.cdn_requests] == ([None] if file == MODEL else [])
        assert (tmp_path / f"models--{NAME.replace('/', '--')}/refs/main").read_text() == repo.commit().sha

    def test_revisions(self, hub: HubServer, tmp_path: Path) -> None:
        repo = hub.add(gemma())
        for revision in (BRANCH, repo.commit(BRANCH).sha):
            path = client.hf_hub_download(
                NAME, "x.rkllm", revision=revision, endpoint=hub.url, cache_dir=tmp_path, token=False
            )
            assert repo.commit(BRANCH).sha in path

    def test_a_snapshot_and_a_second_one(self, hub: HubServer, tmp_path: Path) -> None:
        repo = hub.add(gemma())
        given = {"endpoint": hub.url, "cache_dir": tmp_path, "token": False}
        folder = client.snapshot_download(NAME, **given)
        for file, content in repo.commit().files.items():
            with open(f"{folder}/{file}", "rb") as got:
                assert got.read() == whole(content)
        count = len(hub.requests)
        assert client.snapshot_download(NAME, **given) == folder
        assert [each.path for each in hub.requests[count:]] == [f"/api/models/{NAME}/revision/main"]

    @pytest.mark.parametrize("source", ["bytes", "disk"])
    @pytest.mark.parametrize("ending", ["rkllm", "gguf", "safetensors", "bin", "model", "txt"])
    def test_kinds_of_files(self, hub: HubServer, tmp_path: Path, source: str, ending: str) -> None:
        (tmp_path / "source").write_bytes(b"content")
        hub.add(Repo("o/m", {f"a.{ending}": b"content" if source == "bytes" else tmp_path / "source"}))
        path = client.hf_hub_download("o/m", f"a.{ending}", endpoint=hub.url, cache_dir=tmp_path, token=False)
        with open(path, "rb") as got:
            assert got.read() == b"content"
        assert len(hub.cdn_requests) == (ending != "txt")

    def test_renamed(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add(gemma(renamed_from="old/name"))
        assert client.HfApi(hub.url, token=False).model_info("old/name").id == NAME
        assert client.hf_hub_download("old/name", MODEL, endpoint=hub.url, cache_dir=tmp_path, token=False)
        assert ask(hub.url, "/old/name/resolve/main/a%20b").headers["location"] == f"/{NAME}/resolve/main/a%20b"
        assert ask(hub.url, "/api/models/old/name?blobs=true").headers["location"] == f"/api/models/{NAME}?blobs=true"

    def test_by_a_mirror(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add(gemma())
        for file in ("README.md", MODEL):
            client.hf_hub_download(NAME, file, endpoint=hub.mirror_url, cache_dir=tmp_path, token=False)
        assert {each.method for each in hub.requests} == {"GET"} and len(hub.cdn_requests) == 1
        path = f"/{NAME}/resolve/main/{MODEL}"
        assert ask(hub.mirror_url, path, "HEAD").status == 200
        moved = ask(hub.mirror_url, path)
        assert (moved.status, moved.headers["location"]) == (301, hub.url + path)

    def test_a_changed_file_is_a_new_commit(self, hub: HubServer, tmp_path: Path) -> None:
        repo = hub.add(gemma())
        before, given = repo.commit().sha, {"endpoint": hub.url, "cache_dir": tmp_path, "token": False}
        first = client.hf_hub_download(NAME, MODEL, **given)
        after = repo.put(MODEL, LargeFile(SIZE, seed="again"))
        second = client.hf_hub_download(NAME, MODEL, **given)
        assert before in first and after in second and before != after
        assert client.hf_hub_download(NAME, MODEL, revision=before, **given, force_download=True) == first
        repo.put(MODEL, None)
        with pytest.raises(errors.EntryNotFoundError):
            client.hf_hub_download(NAME, MODEL, **given)


class TestServer:
    def test_closing_ends_connections_and_threads(self) -> None:
        before = set(threading.enumerate())
        hub = HubServer()
        hub.add(gemma())
        kept = http.client.HTTPConnection(hub.url.removeprefix("http://"))
        kept.request("GET", f"/{NAME}")
        kept.getresponse().read()
        hub.close()
        hub.close()
        assert set(threading.enumerate()) <= before
        assert kept.sock.recv(1) == b""
        kept.close()

    def test_a_mistake_of_the_server_fails_the_test(self) -> None:
        with pytest.raises(RuntimeError, match="unsupported operand"), HubServer() as hub:
            hub.add(gemma())
            hub.page_size = "x"  # type: ignore[assignment]
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(hub.url, f"/api/models/{NAME}/tree/main")

    def test_many_at_a_time(self, hub: HubServer) -> None:
        hub.add(gemma())
        results: list[int] = []

        def work_once() -> None:
            results.append(len(ask(hub.cdn_url, link_to(hub)).body))

        work = [threading.Thread(target=work_once) for _ in range(8)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        assert results == [SIZE] * 8

    def test_a_child_process_sees_this_hub_only(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add(gemma(xet=True))
        code = f"import huggingface_hub; print(huggingface_hub.hf_hub_download({NAME!r}, {MODEL!r}))"
        environment = {**os.environ, **hub.environment(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.startswith(str(tmp_path)), done.stderr
        assert len(hub.cdn_requests) == 1
