"""`rk-gemma pull` when the hub, the line or the disk fail: one line, nothing wrong is kept, and it goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import COMMAND, errors_of
from hubcontent import LargeFile
from hubeffects import Body, Cut, Hold, IgnoreRange, LfsPointer, Status, Then, WrongBytes, rate_limited
from hubreply import Pause
from hubrepo import Repo
from partkit import TOKENIZER, write_rkllm
from pullkit import MODEL, READY, order, patience, pull, ready, see_only

from rk_gemma.hub import pull as verb
from rk_gemma.hub.faults import HubError
from rk_gemma.hub.http import Patience
from rk_gemma.hub.repository import open_repository
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hubserver import HubServer

FILE = MODEL.format("0.0")


@pytest.fixture(autouse=True)
def ours(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see_only(hub, tmp_path / "home", monkeypatch)


@pytest.fixture
def repo(hub: HubServer, tmp_path: Path) -> Repo:
    return hub.add(ready(tmp_path / "r"))


def content(repo: Repo, path: str = FILE) -> bytes:
    commit = repo.commit()
    assert commit is not None
    return b"".join(commit.files[path].read())


def partial(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".b.partial").glob("*"))


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_cut_at_any_byte_it_goes_on(how: Any, hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    size = len(content(repo))
    for number, place in enumerate(random.Random(how).sample(range(1, 50_000), 20)):
        hub.fault(Cut(place, how), at="cdn", file="*.rkllm", skip=number, times=1)
    before = len(hub.cdn_requests)
    bundle = verb.carry_out(made, tmp_path / "b", patience())
    assert bundle.npu_file is not None and bundle.npu_file.read_bytes() == content(repo)
    starts = [request.headers.get("range", "bytes=0-") for request in hub.cdn_requests[before:]]
    assert len(set(starts)) > 9 and size > 1 << 20  # many were asked for the rest only


def test_a_line_that_stays_dead_keeps_what_came(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    fault = hub.fault(Cut(70_000), at="cdn", file="*.rkllm", times=1)
    dead = hub.fault(Status(503), at="cdn", file="*.rkllm", skip=1)
    with pytest.raises(HubError, match="503"):
        verb.carry_out(made, tmp_path / "b", patience())
    assert fault.struck == 1 and dead.struck >= 4
    assert partial(tmp_path) == ["export.json", "model.rkllm", "model.rkllm.at"]
    hub.clear_faults()
    count = len(hub.cdn_requests)
    pull(tmp_path / "b").verify()
    downloads = [r for r in hub.cdn_requests[count:] if r.headers.get("range", "").endswith("-")]
    assert [r.headers["range"] for r in downloads] == ["bytes=70000-"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_another_process_goes_on(sent: signal.Signals, hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    pause = Pause(200_000)
    hub.fault(Hold(pause), at="cdn", file="*.rkllm", skip=4, times=1)  # its head is asked for four times before
    environment = hub.environment(tmp_path / "home")
    command = [*COMMAND, "pull", READY, "-o", str(tmp_path / "b")]
    file = tmp_path / ".b.partial" / "model.rkllm"

    def have() -> int:
        return file.stat().st_size if file.exists() else 0

    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not have():
            pass
        process.send_signal(sent)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    pause.go.set()
    assert ("stopped; 0." in said and "the same command goes on" in said) == (sent == signal.SIGINT), said
    kept = have()
    assert kept
    hub.clear_faults()
    count = len(hub.cdn_requests)
    pull(tmp_path / "b").verify()
    assert any(r.headers.get("range") == f"bytes={kept}-" for r in hub.cdn_requests[count:])


def test_a_server_without_ranges(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    hub.fault(IgnoreRange(), at="cdn")
    hub.fault(Cut(900_000), at="cdn", file="*.rkllm", skip=1, times=2)
    bundle = pull(tmp_path / "b")
    assert bundle.npu_file is not None and bundle.npu_file.read_bytes() == content(repo)


def test_links_that_expire(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    hub.fault(Cut(50_000), Then(hub.expire_links), at="cdn", file="*.rkllm", times=3)
    verb.carry_out(made, tmp_path / "b", patience()).verify()


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (Body(b"<!doctype html><title>Sign in</title>"), "web page"),
        (LfsPointer(), "Git LFS pointer"),
        (WrongBytes(500_000), "another sha256"),
    ],
)
def test_what_comes_must_be_what_the_hub_lists(
    effect: Any, words: str, hub: HubServer, repo: Repo, tmp_path: Path
) -> None:
    made = order()
    hub.fault(effect, at="cdn", file="*.rkllm")
    with pytest.raises((InputError, HubError), match=words):
        verb.carry_out(made, tmp_path / "b", patience())
    assert "model.rkllm" not in partial(tmp_path) and not (tmp_path / "b").exists()
    hub.clear_faults()
    pull(tmp_path / "b").verify()


def test_uploaded_anew_between_two_tries(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    """The same name and size, another model: seen on the hub."""
    made = order()
    hub.fault(Cut(70_000), at="cdn", file="*.rkllm", times=1)
    hub.fault(Status(503), at="cdn", file="*.rkllm", skip=1)
    with pytest.raises(HubError):
        verb.carry_out(made, tmp_path / "b", patience())
    hub.clear_faults()
    other = write_rkllm(tmp_path / "y.rkllm", **{"rkllm.core_num": ("u32", 2)}).read_bytes()
    repo.put(FILE, other)
    assert len(other) == len(content(repo))
    bundle = pull(tmp_path / "b")
    assert bundle.npu_file is not None and bundle.npu_file.read_bytes() == other
    assert bundle.manifest.npu is not None and bundle.manifest.npu.npu_cores == 2


@pytest.mark.parametrize("status", [401, 403])
def test_gated(status: int, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ready(tmp_path / "r", gated="auto", tokens={"hf_ok"}))
    if status == 403:
        monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(InputError, match=rf"gated: sign in, open {hub.url}/{READY} and accept .* HF_TOKEN"):
        order()
    monkeypatch.setenv("HF_TOKEN", "hf_ok")
    pull(tmp_path / "b").verify()
    assert not any("authorization" in request.headers for request in hub.cdn_requests)


def test_what_is_not_there(hub: HubServer, repo: Repo) -> None:
    with pytest.raises(InputError, match=f"{READY}: no revision none"):
        order(f"{READY}@none")
    with pytest.raises(InputError, match="no such repository"):
        order("nobody/nothing")


@pytest.mark.parametrize("form", ["Retry-After", "RateLimit"])
def test_too_many_requests(form: Any, hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    hub.fault(rate_limited(7, form), at="resolve", file="*.rkllm", times=2)
    said: list[str] = []
    slept: list[float] = []
    verb.carry_out(made, tmp_path / "b", Patience(slept.append, said.append)).verify()
    assert len(slept) == 2
    if form == "Retry-After":
        assert slept == [7, 7] and said == [f"{FILE}: the hub asks to wait 7 s"] * 2
    else:
        assert slept == [7, 7]


def test_a_wait_of_an_hour_is_not_waited(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    hub.fault(rate_limited(3600), at="resolve", file="*.rkllm")
    with pytest.raises(HubError, match="asks to wait"):
        verb.carry_out(made, tmp_path / "b", patience())


def test_the_hub_is_away(hub: HubServer, repo: Repo, tmp_path: Path, main: Callable[..., Any]) -> None:
    hub.close()
    done = main("pull", READY, "-o", tmp_path / "b")
    assert done.code == 1 and f"{hub.url} cannot be reached" in done.stderr and len(done.stderr.splitlines()) == 1


def test_offline_with_a_warm_cache(
    hub: HubServer, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    home = tmp_path / "home"
    huggingface_hub.snapshot_download(READY, cache_dir=home / "hub", endpoint=hub.url)
    count = len(hub.requests)
    see_only(hub, home, monkeypatch, offline=True)
    bundle = pull(tmp_path / "b")
    bundle.verify()
    assert len(hub.requests) == count and bundle.manifest.model.source == READY
    with pytest.raises(HubError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        order("some/other")


def test_what_the_cache_has_is_not_downloaded(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    import huggingface_hub

    huggingface_hub.hf_hub_download(READY, FILE, cache_dir=tmp_path / "home" / "hub", endpoint=hub.url)
    made = order()
    count = len(hub.cdn_requests)
    bundle = verb.carry_out(made, tmp_path / "b", patience())
    assert len(hub.cdn_requests) == count
    assert bundle.npu_file is not None and bundle.npu_file.read_bytes() == content(repo)


def test_a_second_time_nothing_is_downloaded(
    hub: HubServer, repo: Repo, tmp_path: Path, main: Callable[..., Any]
) -> None:
    target = tmp_path / "b"
    assert main("pull", READY, "-o", target).code == 0
    whole = [r for r in hub.cdn_requests if r.headers.get("range") is None]
    done = main("pull", READY, "-o", target)
    assert (done.code, "already there, unchanged" in done.stderr) == (0, True)
    again = [r for r in hub.cdn_requests if r.headers.get("range") is None and "rkllm" in r.path]
    assert len(again) <= len(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.joinpath("model.rkllm").write_bytes(b"x" + b.joinpath("model.rkllm").read_bytes()[1:]),
         "model.rkllm: sha256 differs"),
        (lambda b: b.joinpath("model.rkllm").write_bytes(b"x"), "model.rkllm: 1 bytes, the manifest says"),
        (lambda b: shutil.rmtree(b) or b.mkdir(), "exists; remove it or choose another directory"),
        (lambda b: shutil.rmtree(b) or b.write_text("x"), "exists; remove it or choose another directory"),
    ],
)  # fmt: skip
def test_what_was_changed_is_named(
    change: Callable[[Path], object], words: str, repo: Repo, tmp_path: Path, main: Callable[..., Any]
) -> None:
    target = tmp_path / "b"
    pull(target)
    change(target)
    done = main("pull", READY, "-o", target)
    assert done.code == 3 and words in done.stderr


def test_another_bundle_stays(hub: HubServer, repo: Repo, tmp_path: Path, main: Callable[..., Any]) -> None:
    target = tmp_path / "b"
    first = pull(target).manifest
    done = main("pull", READY, "-o", target, "--context", 1024)
    assert done.code == 3 and "made with other options" in done.stderr
    repo.put("README.md", b"new")
    done = main("pull", READY, "-o", target)
    assert done.code == 3 and "the hub has" in done.stderr
    hub.add(Repo("someone/copy-gemma-2-tiny-it-rk3588", ready(tmp_path / "r").files))
    done = main("pull", "someone/copy-gemma-2-tiny-it-rk3588", "-o", target)
    assert done.code == 3 and f"exists and holds {READY}" in done.stderr
    assert Bundle.open(target).manifest == first


def test_too_large_for_the_disk(hub: HubServer, tmp_path: Path) -> None:
    head = write_rkllm(tmp_path / "x.rkllm").read_bytes()[:-28]
    large = LargeFile(1 << 50, head=head, tail=b"rkllm-toolkit version: 1.3.1")
    hub.add(Repo(READY, {FILE: large, "tokenizer.model": TOKENIZER.read_bytes()}))
    with pytest.raises(BundleError, match=r"no space left: .* MiB are needed"):
        pull(tmp_path / "b")
    assert not (tmp_path / ".b.partial").exists()


def test_xet_is_left_alone(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ready(tmp_path / "r", xet=True))
    pull(tmp_path / "b").verify()
    assert not any("xet" in request.path for request in hub.requests)


def test_a_renamed_repository(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ready(tmp_path / "r", renamed_from="old/gemma-2-tiny-it-rk3588"))
    pull(tmp_path / "b", "old/gemma-2-tiny-it-rk3588").verify()


def test_a_mirror(hub: HubServer, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.mirror_url)
    template = hub.mirror_url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    pull(tmp_path / "b").verify()


def test_our_own_bundle(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = pull(tmp_path / "b")
    files = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    hub.add(Repo("me/bundle", files))
    listed = open_repository("me/bundle")
    manifest = verb.published(listed, patience())
    copy = verb.carry_over(listed, manifest, tmp_path / "c", patience())
    copy.verify()
    assert copy.manifest.files == made.manifest.files and copy.manifest.model.source == "me/bundle"
    hub.add(Repo("me/bundle", {**files, "model.rkllm": files["model.rkllm"][:-1] + b"x"}))
    listed = open_repository("me/bundle")
    with pytest.raises(InputError, match=r"me/bundle/model\.rkllm: not as its bundle\.yaml says"):
        verb.carry_over(listed, verb.published(listed, patience()), tmp_path / "d", patience())
    del files["model.rkllm"]
    hub.add(Repo("me/bundle", files))
    listed = open_repository("me/bundle")
    with pytest.raises(InputError, match=r"model\.rkllm is named in its bundle\.yaml and not there"):
        verb.carry_over(listed, manifest, tmp_path / "e", patience())


def test_a_person_sees_one_line(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ready(tmp_path / "r", gated="auto"))
    command = [*COMMAND, "pull", READY, "-o", str(tmp_path / "b")]
    done = subprocess.run(command, env={**os.environ, **hub.environment(tmp_path / "home")}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 3 and "gated" in errors_of(done.stderr)[0]
