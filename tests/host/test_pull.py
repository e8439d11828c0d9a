"""`rk-gemma pull` against a server that speaks the hub's protocol, through the hub's own client: what is chosen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hubcontent import LargeFile
from hubrepo import Repo
from partkit import TOKENIZER, write_gguf, write_rkllm
from pullkit import GGUF, MODEL, READY, ggufs, order, pull, ready, see_only

from rk_gemma.hub.choose import ManyFiles
from rk_gemma.pack.wishes import Wishes
from rk_gemma_runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hubserver import HubServer


@pytest.fixture(autouse=True)
def ours(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see_only(hub, tmp_path / "home", monkeypatch)


def test_a_ready_model(hub: HubServer, tmp_path: Path) -> None:
    repo = hub.add(ready(tmp_path / "r"))
    bundle = pull(tmp_path / "b")
    manifest = bundle.manifest
    assert (manifest.model.source, manifest.model.revision) == (READY, repo.commit().sha)  # type: ignore[union-attr]
    assert manifest.npu is not None
    assert (manifest.npu.toolkit, manifest.npu.dtype, manifest.npu.max_context) == ("1.3.1", "w8a8", 4096)
    assert (manifest.template, manifest.eos, manifest.model.licence) == ("gemma", (1, 107), "Gemma Terms of Use")
    assert (tmp_path / "b" / "tokenizer.model").read_bytes() == TOKENIZER.read_bytes()
    bundle.verify()


def test_only_what_is_needed_is_asked_for(hub: HubServer, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": LargeFile(1 << 30), "transformers/x.safetensors": b"1"}
    repo = ready(tmp_path / "r")
    hub.add(Repo(READY, {**repo.files, **files}))
    pull(tmp_path / "b")
    asked = {request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path}
    assert asked == {MODEL.format("0.0"), "README.md", "tokenizer.model"}


def test_everything_is_known_before_the_download(hub: HubServer, tmp_path: Path) -> None:
    head = write_rkllm(tmp_path / "x.rkllm").read_bytes()[:-28]
    large = LargeFile(10 << 30, head=head, tail=b"rkllm-toolkit version: 1.1.1")
    name = "c01zaut/gemma-2-9b-it-rk3588-1.1.1"
    hub.add(Repo(name, {"gemma-2-9b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm": large, "tokenizer.model": b""}))
    made = order(name, tokenizer=str(TOKENIZER))
    assert made.recipe is not None and made.recipe.npu is not None
    assert made.recipe.npu.toolkit.value == "1.1.1" and made.size == 10 << 30
    ranges = [request.headers["range"].removeprefix("bytes=").split("-") for request in hub.cdn_requests]
    assert ranges and sum(int(end) + 1 - int(start) for start, end in ranges) < 16 << 20


@pytest.mark.parametrize("count", [3, 26])
def test_several_files_are_listed_with_the_best_first(count: int, hub: HubServer, tmp_path: Path) -> None:
    dtypes, opts = (("w8a8_g128", "w8a8", "w8a8_g256", "w8a8_g512"), (0, 1)) if count == 26 else (("w8a8",), (1,))
    names = [
        f"gemma-2-9b-it-rk3588-{dtype}-opt-{opt}-hybrid-ratio-{ratio}.rkllm"
        for dtype in dtypes for opt in opts for ratio in ("1.0", "0.0", "0.5")
    ]  # fmt: skip
    more = ["gemma-2-9b-it_w4a16_RK3576.rkllm", "gemma-2-9b-it_w8a8_RK3576.rkllm"] if count == 26 else []
    hub.add(Repo(READY, dict.fromkeys([*names, *more], LargeFile(11_100_000_000))))
    with pytest.raises(ManyFiles) as caught:
        order()
    best = "gemma-2-9b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.0.rkllm"
    assert str(caught.value).endswith(f"choose one, best --file {best}")
    assert len(caught.value.lines) == len(names) and "RK3576" not in " ".join(caught.value.lines)
    assert "fits" in caught.value.lines[0]


def test_one_of_several_is_named(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ready(tmp_path / "r", ("0.0", "0.5")))
    manifest = pull(tmp_path / "b", file=MODEL.format("0.5")).manifest
    assert manifest.npu is not None and manifest.npu.options == "optimization 1, hybrid rate 0.5 (by its name)"
    with pytest.raises(UsageError, match=r"no file 'none\.rkllm'"):
        order(file="none.rkllm")


def test_a_file_on_a_branch(hub: HubServer, tmp_path: Path) -> None:
    repo = ready(tmp_path / "r")
    hub.add(Repo(READY, {"README.md": b"see the branches"}, {"w8a8-toolkitv1.3.1": repo.files}))
    with pytest.raises(InputError, match=r"no \.rkllm and no GGUF; it has README.md; branches: w8a8-toolkitv1\.3\.1"):
        order()
    assert pull(tmp_path / "b", f"{READY}@w8a8-toolkitv1.3.1").manifest.npu is not None


def test_the_link_of_a_page_is_taken(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ready(tmp_path / "r"))
    for link in (f"{hub.url}/{READY}", f"{hub.url}/{READY}/tree/main", f"https://huggingface.co/{READY}"):
        assert order(link).repository.id == READY


@pytest.mark.parametrize(
    ("quant", "taken"), [("", "gemma-2-tiny-it-Q8_0.gguf"), ("q4_0", "gemma-2-tiny-it-Q4_0.gguf")]
)
def test_a_gguf(quant: str, taken: str, hub: HubServer, tmp_path: Path) -> None:
    names = ["mmproj-gemma-f16.gguf", "gemma-2-tiny-it-imatrix.gguf", "gemma-2-tiny-it-Q4_K_M.gguf",
             "gemma-2-tiny-it-Q4_0.gguf", "gemma-2-tiny-it-Q8_0.gguf", "gemma-2-tiny-it-F16.gguf"]  # fmt: skip
    hub.add(ggufs(tmp_path / "r", *names))
    made = order(GGUF, quant=quant)
    assert [(file.path, name) for file, name in made.items] == [(taken, "model.gguf")]
    assert made.recipe is not None and made.recipe.manifest.cpu is not None
    assert made.recipe.manifest.cpu.quant == taken.removesuffix(".gguf").rpartition("-")[2]
    assert any("the most exact that fits" in note for note in made.notes) == (not quant)
    with pytest.raises(UsageError, match="no GGUF of type Q2_K; it has F16, Q4_0, Q4_K_M, Q8_0"):
        order(GGUF, quant="Q2_K")


def test_a_split_gguf_in_a_folder(hub: HubServer, tmp_path: Path) -> None:
    names = [f"Q4_0/gemma-2-tiny-it-Q4_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    hub.add(ggufs(tmp_path / "r", *names, **{"split.count": ("u16", 2)}))
    bundle = pull(tmp_path / "b", GGUF)
    assert bundle.manifest.cpu is not None
    assert bundle.manifest.cpu.file == "gemma-2-tiny-it-Q4_0-00001-of-00002.gguf" and len(bundle.manifest.files) == 3
    hub.add(ggufs(tmp_path / "r", names[0]))
    with pytest.raises(InputError, match="1 of 2 parts"):
        order(GGUF)


def test_raw_parts_are_named(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ggufs(tmp_path / "r", "gemma.Q8_0.gguf.part1of2"))
    with pytest.raises(InputError, match="raw parts: join them"):
        order(GGUF, cpu="", file="")


def test_both_in_one_bundle(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ready(tmp_path / "r"))
    hub.add(ggufs(tmp_path / "g", "gemma-2-tiny-it-Q4_0.gguf", "gemma-2-tiny-it-Q8_0.gguf"))
    manifest = pull(tmp_path / "b", cpu=f"{GGUF}:Q4_0").manifest
    assert manifest.npu and manifest.cpu and manifest.cpu.quant == "Q4_0"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gemma-2-tiny-it-Q4_0.gguf", {"gemma2.block_count": ("u32", 9)}, "layers 2 and 9"),
        ("gemma-2-9b-Q4_0.gguf", {}, "variant it and base"),
        ("gemma-tiny-it-Q4_0.gguf", {"general.architecture": ("string", "gemma")}, "family gemma2 and gemma"),
    ],
)
def test_two_models_are_not_joined(
    name: str, changes: dict[str, Any], words: str, hub: HubServer, tmp_path: Path
) -> None:
    hub.add(ready(tmp_path / "r"))
    repo = ggufs(tmp_path / "g", name, **changes)
    hub.add(Repo("someone/other-GGUF", repo.files))
    with pytest.raises(InputError, match=words):
        order(cpu="someone/other-GGUF")
    assert order(wishes=Wishes(force=True), cpu="someone/other-GGUF").recipe is not None


def test_where_the_tokenizer_comes_from(hub: HubServer, tmp_path: Path) -> None:
    repo = ready(tmp_path / "r")
    bare = {name: data for name, data in repo.files.items() if name != "tokenizer.model"}
    hub.add(Repo(READY, bare))
    made = order()
    assert made.recipe is None and made.npu is not None  # what is known is shown all the same
    assert "no tokenizer in it; give --tokenizer" in str(made.missing) and "google/gemma-2-2b-it" in str(made.missing)
    hub.add(Repo("google/gemma-2-2b-it", {"tokenizer.model": TOKENIZER.read_bytes()}))
    for given in (str(TOKENIZER), str(TOKENIZER.parent), "google/gemma-2-2b-it"):
        words = order(tokenizer=given).given.vocabulary
        assert words is not None and words.data == TOKENIZER.read_bytes()
    assert order(tokenizer="none").recipe.manifest.template == "none"  # type: ignore[union-attr]
    hub.add(ggufs(tmp_path / "g", "gemma-2-tiny-it-Q4_0.gguf"))
    taken = order(cpu=GGUF).given.vocabulary
    assert taken is not None and taken.origin.endswith("gemma-2-tiny-it-Q4_0.gguf")


def test_a_tokenizer_that_does_not_match(hub: HubServer, tmp_path: Path, gemma_tokenizer: Path) -> None:
    hub.add(ready(tmp_path / "r"))
    with pytest.raises(InputError, match="256000 pieces"):
        order(tokenizer=str(gemma_tokenizer))
    with pytest.raises(InputError, match="not a SentencePiece model"):
        order(tokenizer=str(write_rkllm(tmp_path / "x.model")))


def test_a_base_model(hub: HubServer, tmp_path: Path) -> None:
    hub.add(Repo("google/gemma-2b-GGUF", {"gemma-2b.gguf": write_gguf(tmp_path / "x.gguf").read_bytes()}))
    manifest = pull(tmp_path / "b", "google/gemma-2b-GGUF").manifest
    assert (manifest.template, manifest.eos) == ("none", (1,))
    assert (manifest.cpu.quant if manifest.cpu else "") == "Q4_0"  # the name does not say; the file does


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no .rkllm and no GGUF; it has nothing"),
        ({"README.md": b"x", "model.safetensors": b"x"}, "it has README.md, model.safetensors"),
        ({"gemma-2-2b-it_w8a8_RK3576.rkllm": b"x"}, "its .rkllm files are for RK3576, not for RK3588"),
        ({"gemma-2-2b-it-w8a8.rkllm": b"version https://git-lfs.github.com/spec/v1\nsize 5\n"}, "Git LFS pointer"),
        ({"gemma-2-2b-it-w8a8.rkllm": b""}, "an empty file"),
        ({"gemma-2-2b-it-w8a8.rkllm": b"<html>" + bytes(99)}, "web page"),
        ({"gemma-2-2b-it.Q4_0.gguf": b"<html>" + bytes(99)}, "web page"),
    ],
)
def test_what_is_of_no_use(files: dict[str, bytes], words: str, hub: HubServer) -> None:
    hub.add(Repo(READY, files))
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        order(tokenizer=str(TOKENIZER))


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        (
            "Qwen3-4B-rk3588-w8a8.rkllm",
            {"general.architecture": ("string", "qwen3")},
            "qwen3; this release runs Gemma",
        ),
        ("gemma-3-1b-it-rk3588-w8a8.rkllm", {"general.architecture": ("string", "gemma3")}, "Gemma 3; this release"),
    ],
)
def test_other_families(name: str, make: dict[str, Any], words: str, hub: HubServer, tmp_path: Path) -> None:
    hub.add(Repo(READY, {name: write_rkllm(tmp_path / "x", **make).read_bytes()}))
    with pytest.raises(InputError, match=words):
        order(tokenizer=str(TOKENIZER))


def test_what_nobody_says_is_asked_for(hub: HubServer, tmp_path: Path, main: Callable[..., Any]) -> None:
    data = write_rkllm(tmp_path / "x", **{"rkllm.core_num": None}).read_bytes()
    hub.add(Repo("someone/things", {"model.rkllm": data, "tokenizer.model": TOKENIZER.read_bytes()}))
    done = main("pull", "someone/things", "--check")
    assert done.code == 2 and "give --dtype, --npu-cores, --variant" in done.stderr
    assert "files       model.rkllm" in done.stdout
    done = main(
        "pull", "someone/things", "-o", tmp_path / "b", "--dtype", "w8a8", "--npu-cores", 2, "--variant", "it"
    )
    assert done.code == 0, done.stderr


def test_the_table(hub: HubServer, tmp_path: Path, main: Callable[..., Any]) -> None:
    hub.add(ready(tmp_path / "r"))
    done = main("pull", READY, "--check")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "toolkit     1.3.1 (the file)" in lines and "library     needs librkllmrt >= 1.3.1" in lines
    assert "dtype       w8a8 (its name)" in lines
    assert sum(line.startswith("board ") for line in lines) == 4
    tree = json.loads(main("pull", READY, "--check", "--json", "--ram", 8).stdout)
    assert tree["context"] == 4096 and tree["missing"] is None and len(tree["board"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([READY], "give -o DIR, or --check"),
        (["gemma", "--check"], "no such repository"),
        (["a/b/c/d", "--check"], "it has the form OWNER/NAME"),
        (["a b/c", "--check"], "it has the form OWNER/NAME"),
        ([READY, "--json", "-o", "x"], "--json goes with --check"),
        ([READY, "--check", "--board", "none-such"], "none-such"),
    ],
)
def test_wrong_words(arguments: list[str], words: str, main: Callable[..., Any]) -> None:
    done = main("pull", *arguments)
    assert done.code in (2, 3) and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_ggufs_of_two_models(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ggufs(tmp_path / "r", "gemma-2-9b-it-Q4_0.gguf", "gemma-2b-it-Q4_0.gguf", "gemma-2b-it-Q8_0.gguf"))
    with pytest.raises(UsageError, match="GGUF files of 2 models; choose one with --file"):
        order(GGUF, quant="Q4_0")
    assert order(GGUF, file="gemma-2b-it-Q4_0.gguf").items[0][0].path == "gemma-2b-it-Q4_0.gguf"
    assert order(GGUF, quant="Q8_0").items[0][0].path == "gemma-2b-it-Q8_0.gguf"


def test_a_name_that_the_gguf_contradicts(hub: HubServer, tmp_path: Path) -> None:
    hub.add(Repo(GGUF, {"gemma-2-tiny-it-Q8_0.gguf": write_gguf(tmp_path / "x", 2).read_bytes()}))
    made = order(GGUF)
    assert made.recipe is not None and made.recipe.manifest.cpu is not None
    assert made.recipe.manifest.cpu.quant == "Q4_0" and any("not Q8_0" in note for note in made.notes)


@pytest.mark.parametrize(
    ("asked", "wishes", "words"),
    [
        ({"source": READY, "quant": "Q4_0"}, Wishes(), "--quant is for GGUF"),
        ({"source": GGUF}, Wishes(dtype="w8a8"), "--dtype is for .rkllm files"),
        ({"source": GGUF}, Wishes(cores=3), "--npu-cores is for .rkllm files"),
    ],
)
def test_options_that_say_nothing_here(
    asked: dict[str, str], wishes: Wishes, words: str, hub: HubServer, tmp_path: Path
) -> None:
    hub.add(ready(tmp_path / "r"))
    hub.add(ggufs(tmp_path / "g", "gemma-2-tiny-it-Q4_0.gguf"))
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        order(wishes=wishes, **asked)


def test_an_incomplete_split_is_no_matter_where_another_is_taken(hub: HubServer, tmp_path: Path) -> None:
    hub.add(ggufs(tmp_path / "r", "gemma-2-it-Q4_0.gguf", "gemma-2-it-Q8_0-00001-of-00003.gguf"))
    assert order(GGUF, quant="Q4_0").items[0][0].path == "gemma-2-it-Q4_0.gguf"
    with pytest.raises(InputError, match="1 of 3 parts"):
        order(GGUF, quant="Q8_0")
