"""The test hub (hubserver.py), asked by the real client and by plain HTTP: what it answers when things go wrong."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hubask import MODEL, NAME, SIZE, ask, gemma, link_to, read, whole
from hubcontent import LargeFile
from hubeffects import (
    Body,
    Chunked,
    Cut,
    Drip,
    Header,
    Hold,
    IgnoreRange,
    LfsPointer,
    Then,
    WrongBytes,
    WrongLength,
)
from hubreply import Pause
from hubserver import HubServer

if TYPE_CHECKING:
    from collections.abc import Callable

client = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed; `make check` installs it")

errors = pytest.importorskip("huggingface_hub.errors")

PAGE = b"<!doctype html><title>Sign in</title>"


class TestConnection:
    @pytest.mark.parametrize("how", ["rst", "fin"])
    @pytest.mark.parametrize("after", [0, 1, 65_536, 65_537, 150_000, SIZE - 1])
    def test_a_cut_is_exact(self, hub: HubServer, how: Any, after: int) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        hub.fault(Cut(after, how), at="cdn", skip=1, times=1)
        assert read(hub) == (data, None)
        got, error = read(hub)
        assert got == data[:after]
        assert isinstance(error, ConnectionResetError) == (how == "rst")
        assert read(hub) == (data, None)

    def test_a_cut_is_mended_by_a_range(
        self, hub: HubServer, download: Callable[..., bytes], slept: list[float]
    ) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        cuts = [10_000, 7, 150_000]
        for number, after in enumerate(cuts):
            hub.fault(Cut(after, "fin"), at="cdn", skip=number, times=1)
        assert download() == data
        first = [int((each.range or "bytes=0-").removeprefix("bytes=").rstrip("-")) for each in hub.cdn_requests]
        assert len(first) == 4 and first[0] == 0 and first == sorted(first)

    def test_a_reset_ends_the_client(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        hub.fault(Cut(10_000, "rst"), at="cdn", times=1)
        with pytest.raises(Exception, match="reset by peer"):
            download()
        assert download() == data

    def test_a_cut_of_a_part(self, hub: HubServer) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        hub.fault(Cut(5, "fin"), at="cdn")
        assert read(hub, Range="bytes=100-")[0] == data[100:105]

    def test_ranges_ignored(self, hub: HubServer, download: Callable[..., bytes], slept: list[float]) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        hub.fault(Cut(50_000, "fin"), at="cdn", times=1)
        hub.fault(IgnoreRange(), at="cdn")
        assert download() == data
        assert read(hub, Range="bytes=100-200") == (data, None)
        assert read(hub, Range=f"bytes={SIZE}-") == (data, None)

    @pytest.mark.parametrize("by", [-1, -1000, 1, 1000])
    def test_a_wrong_length(
        self, hub: HubServer, download: Callable[..., bytes], slept: list[float], by: int
    ) -> None:
        hub.add(gemma())
        hub.fault(WrongLength(by), at="cdn")
        if by > 0:
            with pytest.raises(http.client.IncompleteRead):
                ask(hub.cdn_url, link_to(hub))
        else:
            assert len(ask(hub.cdn_url, link_to(hub)).body) == SIZE + by
        with pytest.raises(Exception, match=r"(?i)consistency|incomplete|closed"):
            download()

    @pytest.mark.parametrize("gzip", [False, True])
    @pytest.mark.parametrize("file", ["README.md", MODEL])
    def test_no_length(self, hub: HubServer, download: Callable[..., bytes], file: str, gzip: bool) -> None:
        data = whole(hub.add(gemma()).file(file))
        fault = hub.fault(Chunked(gzip), at="cdn" if file == MODEL else "resolve")
        assert download(file) == data and fault.struck == 1

    def test_slow(self, hub: HubServer) -> None:
        hub.add(gemma(files={MODEL: LargeFile(1000)}))
        hub.fault(Drip(10_000), at="cdn")
        begun = time.monotonic()
        assert len(read(hub)[0]) == 1000
        assert time.monotonic() - begun >= 0.09

    @pytest.mark.parametrize("after", [0, 70_000, SIZE])
    def test_held(self, hub: HubServer, after: int) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        pause = Pause(after)
        hub.fault(Hold(pause), at="cdn")
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read(hub)[0]))
        reader.start()
        assert pause.reached.wait(60) and not pause.go.is_set()
        pause.go.set()
        reader.join()
        assert got == [data]

    @pytest.mark.parametrize("effect", [Hold(Pause(10)), Drip(1.0)])
    def test_closing_does_not_wait_for_a_body(self, only_here: None, effect: Any) -> None:
        with HubServer() as hub:
            hub.add(gemma())
            hub.fault(effect, at="cdn")
            got: list[bytes] = []
            reader = threading.Thread(target=lambda: got.append(read(hub)[0]))
            reader.start()
            while not hub.cdn_requests:
                threading.Event().wait(0.001)
        reader.join()
        assert not got or len(got[0]) < SIZE


class TestContents:
    def test_a_page_in_place_of_a_file(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        hub.add(gemma())
        fault = hub.fault(Body(PAGE), at="cdn")
        with pytest.raises(OSError, match="onsistency"):
            download()
        assert fault.struck and read(hub) == (PAGE, None)

    def test_a_page_for_a_head(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        hub.add(gemma())
        hub.fault(Body(PAGE), at="resolve", method="HEAD")
        with pytest.raises(errors.LocalEntryNotFoundError):
            download()

    def test_a_pointer_in_place_of_a_file(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        repo = hub.add(gemma())
        hub.fault(LfsPointer(), at="cdn")
        with pytest.raises(OSError, match="onsistency"):
            download()
        assert repo.file(MODEL).sha256.encode() in read(hub)[0]

    @pytest.mark.parametrize("at", [0, 65_536, SIZE - 1])
    def test_wrong_bytes_of_the_right_size(self, hub: HubServer, download: Callable[..., bytes], at: int) -> None:
        data = whole(hub.add(gemma()).file(MODEL))
        hub.fault(WrongBytes(at), at="cdn")
        got = download()
        assert [number for number, pair in enumerate(zip(got, data, strict=True)) if pair[0] != pair[1]] == [at]
        assert read(hub, Range=f"bytes={at}-{at}")[0] == got[at : at + 1]

    def test_uploaded_again_between_two_attempts(
        self, hub: HubServer, download: Callable[..., bytes], slept: list[float]
    ) -> None:
        repo = hub.add(gemma())
        old, again = repo.commit(), LargeFile(SIZE, seed="again")
        hub.fault(Cut(1000, "fin"), Then(lambda: repo.put(MODEL, again)), at="cdn", times=1)
        assert hashlib.sha256(download()).hexdigest() == old.files[MODEL].sha256, "a link keeps its bytes"
        head = ask(hub.url, f"/{NAME}/resolve/main/{MODEL}", "HEAD").headers
        assert head["x-linked-etag"] == f'"{again.sha256}"' and head["x-linked-size"] == str(SIZE)
        assert head["x-repo-commit"] == repo.commit().sha != old.sha
        assert download() == whole(again)
        assert ask(hub.url, f"/{NAME}/resolve/{old.sha}/{MODEL}", "HEAD").headers["x-repo-commit"] == old.sha

    @pytest.mark.parametrize("file", ["README.md", MODEL])
    def test_a_header_left_out(self, hub: HubServer, download: Callable[..., bytes], file: str) -> None:
        hub.add(gemma())
        hub.fault(Header("X-Repo-Commit"), at="resolve")
        with pytest.raises(errors.LocalEntryNotFoundError):
            download(file)

    def test_a_header_that_is_wrong(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        hub.add(gemma())
        hub.fault(Header("X-Linked-Size", "7"), at="resolve")
        with pytest.raises(OSError, match="onsistency"):
            download()

    @pytest.mark.parametrize("off", [True, False])
    def test_xet_is_offered(
        self, hub: HubServer, download: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, off: bool
    ) -> None:
        data = whole(hub.add(gemma(xet=True)).file(MODEL))
        monkeypatch.setattr(client.constants, "HF_HUB_DISABLE_XET", off)
        plain = off or importlib.util.find_spec("hf_xet") is None
        if plain:
            assert download() == data
        else:
            with pytest.raises(errors.HfHubHTTPError):
                download()
        assert plain != any("/xet-read-token/" in each.path for each in hub.requests)
        assert b"xetHash" in ask(hub.url, f"/api/models/{NAME}/tree/main").body
