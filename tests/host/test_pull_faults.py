"""`rk-gemma pull` when the hub, the line or the disk fail: one line, nothing wrong is kept, and it goes on."""

from __future__ import annotations

import os
import random
import resource
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
from pullkit import GGUF, MODEL, READY, ggufs, order, patience, pull, ready, see_only

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
    assert done.code == 3 and "with other options" in done.stderr
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


def test_another_source_for_the_cpu_is_another_bundle(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    for owner in ("one", "two"):
        data = ggufs(tmp_path / owner, "gemma-2-tiny-it-Q4_0.gguf", **{"general.name": ("string", owner)}).files
        hub.add(Repo(f"{owner}/gemma-2-tiny-it-GGUF", data))
    made = order(cpu="one/gemma-2-tiny-it-GGUF")
    there = verb.carry_out(made, tmp_path / "b", patience())
    assert made.recipe is not None
    verb.check_unchanged(there, made.recipe.manifest, verb.hashes_of(made))
    other = order(cpu="two/gemma-2-tiny-it-GGUF")
    assert other.recipe is not None
    with pytest.raises(BundleError, match="made of other files"):
        verb.check_unchanged(there, other.recipe.manifest, verb.hashes_of(other))


def test_leftovers_of_another_order_stay_out(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    hub.fault(Cut(70_000), at="cdn", file="*.rkllm", times=1)
    hub.fault(Status(503), at="cdn", file="*.rkllm", skip=1)
    with pytest.raises(HubError):
        verb.carry_out(made, tmp_path / "b", patience())
    hub.clear_faults()
    hub.add(ggufs(tmp_path / "g", "gemma-2-tiny-it-Q4_0.gguf"))
    pull(tmp_path / "b", GGUF)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "bundle.yaml",
        "model.gguf",
        "tokenizer.model",
    ]


def test_what_cannot_be_opened_does_not_stand_at_the_target(hub: HubServer, tmp_path: Path) -> None:
    data = write_rkllm(tmp_path / "x", **{"rkllm.core_num": ("i32", -1)}).read_bytes()
    hub.add(Repo(READY, {FILE: data, "tokenizer.model": TOKENIZER.read_bytes()}))
    made = order()
    if made.recipe is not None:
        with pytest.raises(BundleError):
            verb.carry_out(made, tmp_path / "b", patience())
    assert not (tmp_path / "b").exists()


def test_a_full_disk_is_not_the_networks_fault(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    environment = {**os.environ, **hub.environment(tmp_path / "home")}
    done = subprocess.run(
        [*COMMAND, "pull", READY, "-o", str(tmp_path / "b"), "--tokenizer", str(TOKENIZER)], env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3 and "cannot be written: File too large" in errors_of(done.stderr)[0]


@pytest.mark.parametrize("body", [b"<!doctype html><title>Proxy login</title>", b"{}", b"[]"])
def test_an_answer_that_is_not_the_hubs(body: bytes, hub: HubServer, repo: Repo) -> None:
    hub.fault(Body(body, "application/json"), at="info")
    with pytest.raises(HubError, match="did not answer as a hub does"):
        order()


@pytest.mark.parametrize("effect", [Body(b"<!doctype html><title>Sign in</title>"), LfsPointer()])
def test_a_page_in_place_of_the_head(effect: Any, hub: HubServer, repo: Repo) -> None:
    hub.fault(effect, at="cdn", file="*.rkllm")
    with pytest.raises(InputError, match="what came is a"):
        order()


def test_the_list_is_asked_for_again_when_the_hub_is_busy(hub: HubServer, repo: Repo) -> None:
    hub.fault(rate_limited(3), at="info", times=2)
    slept: list[float] = []
    assert open_repository(READY, "", Patience(slept.append)).commit and slept == [3, 3]


def test_a_token_that_is_not_known(hub: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(InputError, match="the hub does not know this token; renew HF_TOKEN"):
        order()


def test_a_damaged_cache_is_told_and_gone_round(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    import huggingface_hub

    place = huggingface_hub.hf_hub_download(READY, FILE, cache_dir=tmp_path / "home" / "hub", endpoint=hub.url)
    data = bytearray(content(repo))
    data[600_000] ^= 1
    with open(os.path.realpath(place), "wb") as blob:
        blob.write(data)
    said: list[str] = []
    verb.carry_out(order(), tmp_path / "b", Patience(lambda s: None, said.append)).verify()
    assert len(said) == 1 and "damaged in the cache" in said[0]


@pytest.mark.parametrize("target", ["no/such/b", "n" * 300])
def test_where_nothing_can_be_written(
    target: str, hub: HubServer, repo: Repo, tmp_path: Path, main: Callable[..., Any]
) -> None:
    done = main("pull", READY, "-o", tmp_path / target)
    assert done.code == 3 and len(done.stderr.splitlines()) == 1 and not hub.requests


def test_a_bundle_is_looked_at_and_taken_as_it_is(
    hub: HubServer, repo: Repo, tmp_path: Path, main: Callable[..., Any]
) -> None:
    pull(tmp_path / "b")
    hub.add(Repo("me/bundle", {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}))
    done = main("pull", "me/bundle", "--check")
    assert done.code == 0 and "a bundle" in done.stdout and "library     needs librkllmrt >= 1.3.1" in done.stdout
    done = main("pull", "me/bundle", "--check", "--quant", "Q4_0")
    assert done.code == 2 and "taken as it is" in done.stderr


def test_what_a_card_says_cannot_write_to_the_terminal(
    hub: HubServer, tmp_path: Path, main: Callable[..., Any]
) -> None:
    card = b'---\nlicense: "gemma\\e[2J\\a"\n---\n'
    hub.add(Repo(READY, {**ready(tmp_path / "r").files, "README.md": card}))
    done = main("pull", READY, "--check")
    assert done.code == 0 and "\x1b" not in done.stdout and "\x07" not in done.stdout


def test_signatures_stay_out_of_messages(hub: HubServer, repo: Repo, tmp_path: Path) -> None:
    made = order()
    hub.fault(Status(500), at="cdn", file="*.rkllm")
    with pytest.raises(HubError) as caught:
        verb.carry_out(made, tmp_path / "b", patience())
    assert "?" not in str(caught.value) and "ignature" not in str(caught.value)
