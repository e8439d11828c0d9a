"""`rk-gemma pack`: bundles from files at hand."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from partkit import NAME, SHAPE, TOKENIZER, keys, vocabulary, write_gguf, write_rkllm

from rk_gemma.pack.npupart import NpuInput, settle_npu
from rk_gemma.pack.pack import pack
from rk_gemma.pack.vocabulary import Tokens, Vocabulary, check_vocabulary
from rk_gemma.pack.wishes import Wishes
from rk_gemma.parts.card import read_card
from rk_gemma.parts.names import read_name
from rk_gemma.parts.settle import Settling
from rk_gemma_runtime.bundle import Bundle, NpuPart
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import BundleError, InputError, RkGemmaError, UsageError
from rk_gemma_runtime.rkllmfile.describe import describe
from rk_gemma_runtime.rkllmfile.source import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IT = Wishes(variant="it")


@pytest.fixture
def rkllm(tmp_path: Path) -> Path:
    return write_rkllm(tmp_path / f"{NAME}.rkllm")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "gemma-2-tiny-it-Q4_0.gguf")


def test_a_bundle_for_both(rkllm: Path, gguf: Path, tmp_path: Path) -> None:
    bundle = pack([rkllm, gguf, TOKENIZER], tmp_path / "b", Wishes())
    manifest = bundle.manifest
    assert manifest.npu == NpuPart(
        "model.rkllm", "rkllm", "w8a8", "RK3588", "1.3.1", 4096, 3, "optimization 1, hybrid rate 0 (by its name)"
    )
    assert manifest.npu.library == "librkllmrt >= 1.3.1"
    assert (manifest.cpu.file, manifest.cpu.quant) == ("model.gguf", "Q4_0")  # type: ignore[union-attr]
    assert (manifest.context, manifest.vocab, manifest.bos, manifest.eos) == (4096, 2048, 2, (1, 107))
    assert (manifest.template, manifest.shape, manifest.model.family) == ("gemma", SHAPE, "gemma2")
    assert manifest.model.variant == "it"
    bundle.verify()
    assert (tmp_path / "b" / "tokenizer.model").read_bytes() == TOKENIZER.read_bytes()


def test_a_gguf_brings_its_tokenizer(gguf: Path, tmp_path: Path) -> None:
    bundle = pack([gguf], tmp_path / "b", Wishes())
    path = bundle.tokenizer_file
    assert path is not None and bundle.manifest.npu is None
    made, own = Tokenizer.open(path), Tokenizer.open(TOKENIZER)
    for text in ("Hello NPU!", " two  spaces\n\nand <start_of_turn>user", "größe 日本 1234", "<bos>"):
        assert made.encode(text) == own.encode(text)
    assert (made.bos, made.eos, made.end_of_turn) == (2, 1, 107)


def test_gemmas_own_vocabulary_is_known_in_an_rkllm(gemma_tokenizer: Path, tmp_path: Path) -> None:
    from rk_gemma.pack.gemmavocab import PIECES, is_gemma

    pieces = [piece.encode() for piece in vocabulary(gemma_tokenizer)[0]]
    assert len(pieces) == PIECES and is_gemma(pieces)
    path = tmp_path / "gemma-2-2b-it-w8a8.rkllm"
    write_rkllm(path, **keys(gemma_tokenizer, **{"general.file_type": ("u32", 7)}))
    bundle = pack([path], tmp_path / "b", Wishes())
    assert bundle.tokenizer_file is not None
    made, own = Tokenizer.open(bundle.tokenizer_file), Tokenizer.open(gemma_tokenizer)
    for text in ("The quick brown fox", "\n\n\t\t  x = [1, 2]", "<h1>größe</h1> 日本語 \U0001f600"):
        assert made.encode(text) == own.encode(text)


def test_an_rkllm_with_another_vocabulary_needs_a_tokenizer(rkllm: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tokenizer FILE, or --tokenizer none"):
        pack([rkllm], tmp_path / "b", Wishes())
    bundle = pack([rkllm], tmp_path / "b", Wishes(), ids_only=True)
    assert (bundle.manifest.tokenizer, bundle.manifest.template, bundle.manifest.eos) == (None, "none", (1,))


@pytest.mark.parametrize(
    ("name", "changes", "missing"),
    [
        ("model.rkllm", {}, ["--dtype", "--variant"]),
        ("model-w8a8.rkllm", {"rkllm.core_num": None}, ["--npu-cores", "--variant"]),
        ("gemma-2-it.rkllm", {"rkllm.max_context": None, "rkllm.core_num": None},
         ["--dtype", "--context", "--npu-cores"]),
        ("model-it-w8a8.rkllm", {"general.architecture": None}, ["--family"]),
        (f"{NAME}.rkllm", {"rkllm.core_num": None}, ["--npu-cores"]),
    ],
)  # fmt: skip
def test_exactly_what_no_file_tells_is_asked_for(
    name: str, changes: dict[str, Any], missing: list[str], tmp_path: Path
) -> None:
    path = write_rkllm(tmp_path / name, **changes)
    with pytest.raises(UsageError) as caught:
        pack([path, TOKENIZER], tmp_path / "b", Wishes())
    said = str(caught.value).partition("; give ")[2].split(", ")
    assert [option for option in said if option != "--size"] == missing
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("version", ["1.1.0", "1.1.4", "1.2.1b1", "1.3.0"])
def test_each_toolkit_from_1_1_on(version: str, tmp_path: Path) -> None:
    path = write_rkllm(tmp_path / f"{NAME}.rkllm", trailer=version)
    manifest = pack([path, TOKENIZER], tmp_path / "b", Wishes()).manifest
    assert manifest.npu is not None and manifest.npu.library == f"librkllmrt >= {version}"


@pytest.mark.parametrize(
    ("gigabytes", "dtype"), [(3.82, "w8a8"), (3.79, "w8a8"), (6.43, "fp16"), (4.05, None), (2.0, None)]
)
def test_a_size_can_tell_the_type(gigabytes: float, dtype: str | None, tmp_path: Path) -> None:
    """3.82 GB is what gemma-2-2b-it has on the hub, in w8a8."""
    shape = {"embedding_length": 2304, "block_count": 26, "feed_forward_length": 9216, "attention.head_count": 8,
             "attention.head_count_kv": 4, "attention.key_length": 256}  # fmt: skip
    changes = {f"gemma2.{key}": ("u32", value) for key, value in shape.items()}
    path = write_rkllm(tmp_path / "gemma-2-2b-it.rkllm", **changes, **{"gemma2.vocab_size": ("u32", 256_000),
                       "tokenizer.ggml.tokens": None})  # fmt: skip
    end = path.read_bytes()[-28:]
    os.truncate(path, int(gigabytes * 1e9) - 28)
    with path.open("ab") as file:
        file.write(end)
    with FileSource(path) as source:
        settled = settle_npu(NpuInput("x", describe(source), read_name(path.name)), Wishes(), Settling())
    assert settled.dtype.value == (dtype or "")
    assert ("--dtype" in settled.missing) == (dtype is None)


def test_options_say_what_no_file_tells(tmp_path: Path) -> None:
    path = write_rkllm(tmp_path / "model.rkllm", trailer="", **{"rkllm.core_num": None, "rkllm.version": None})
    wishes = Wishes(dtype="w8a8_g128", cores=2, variant="it", toolkit="1.2.0", context=2048, licence="mine")
    manifest = pack([path, TOKENIZER], tmp_path / "b", wishes).manifest
    assert manifest.npu is not None
    assert (manifest.npu.dtype, manifest.npu.npu_cores, manifest.npu.toolkit) == ("w8a8_g128", 2, "1.2.0")
    assert (manifest.context, manifest.npu.max_context, manifest.model.licence) == (2048, 4096, "mine")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: write_rkllm(p, trailer="1.0.1"), "rkllm-toolkit 1.0.1"),
        (lambda p: write_rkllm(p, **{"general.architecture": ("string", "llama")}), "llama"),
        (lambda p: write_rkllm(p, **{"general.architecture": ("string", "gemma3")}), "Gemma 3"),
        (lambda p: p.write_bytes(write_rkllm(p).read_bytes()[:40_000]), "not whole"),
        (lambda p: p.write_bytes(b""), "an empty file"),
        (lambda p: p.write_bytes(b"<!DOCTYPE html><title>Login</title>"), "web page"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9\n"), "Git LFS pointer"),
        (lambda p: p.write_bytes(b"PK\3\4" + bytes(99)), "zip archive"),
        (lambda p: p.write_bytes(b"\x80\x02}q\0."), "pickle"),
        (lambda p: p.mkdir(), "a directory"),
        (lambda p: None, "no such file"),
    ],
)
def test_what_cannot_be_a_part(make: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "gemma-2-it-w8a8.rkllm"
    make(path)
    with pytest.raises(InputError, match=words):
        pack([path, TOKENIZER], tmp_path / "b", Wishes())
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry != path) == []


@pytest.mark.parametrize("platform", ["RK3576", "RK3562"])
def test_a_name_for_another_chip(platform: str, tmp_path: Path) -> None:
    path = write_rkllm(tmp_path / f"gemma-2-it_w4a16_{platform}.rkllm", **{"rkllm.platform": None})
    with pytest.raises(InputError, match=f"made for {platform}"):
        pack([path, TOKENIZER], tmp_path / "b", IT)


def test_a_file_for_another_chip(tmp_path: Path) -> None:
    path = write_rkllm(tmp_path / f"{NAME}.rkllm", **{"rkllm.platform": ("u32", 2)})
    with pytest.raises(InputError, match="its platform has the unknown code 2, which is not RK3588's"):
        pack([path, TOKENIZER], tmp_path / "b", Wishes())
    pack([path, TOKENIZER], tmp_path / "b", Wishes(force=True))


def test_a_name_that_the_file_contradicts_is_said(tmp_path: Path) -> None:
    path = write_rkllm(tmp_path / "gemma-2-it-rk3576-w4a16-ctx8192-npu2.rkllm")
    said: list[str] = []
    manifest = pack([path, TOKENIZER], tmp_path / "b", Wishes(dtype="w8a8"), warn=said.append).manifest
    assert manifest.npu is not None and manifest.npu.platform == "RK3588"
    assert any("its name says RK3576, the file RK3588" in line for line in said)
    assert any("w4a16" in line and "not believed" in line for line in said)
    assert any("its name says 8192, the file 4096" in line for line in said)


@pytest.mark.parametrize(
    "changes",
    [{"gemma2.block_count": ("u32", 3)}, {"gemma2.embedding_length": ("u32", 128)},
     {"general.architecture": ("string", "gemma")}],
)  # fmt: skip
def test_two_models_are_not_joined(changes: dict[str, Any], rkllm: Path, tmp_path: Path) -> None:
    other = write_gguf(tmp_path / "gemma-2-it-Q4_0.gguf", **changes)
    with pytest.raises(InputError, match="are two models"):
        pack([rkllm, other, TOKENIZER], tmp_path / "b", Wishes())
    pack([rkllm, other, TOKENIZER], tmp_path / "b", Wishes(force=True))


def test_base_and_instruct_are_not_joined(rkllm: Path, tmp_path: Path) -> None:
    other = write_gguf(tmp_path / "gemma-2-2b-Q4_0.gguf")
    with pytest.raises(InputError, match="variant it and base"):
        pack([rkllm, other, TOKENIZER], tmp_path / "b", Wishes())


def test_a_base_model_continues_texts(tmp_path: Path) -> None:
    said: list[str] = []
    manifest = pack(
        [write_gguf(tmp_path / "gemma-2b.Q8_0.gguf")], tmp_path / "b", Wishes(), warn=said.append
    ).manifest
    assert (manifest.template, manifest.eos, manifest.model.variant) == ("none", (1,), "")
    assert any("base model" in line for line in said)


def test_a_tokenizer_of_another_model(rkllm: Path, gemma_tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="256000 pieces"):
        pack([rkllm, gemma_tokenizer], tmp_path / "b", Wishes())
    pieces = [*reversed(vocabulary()[0][300:]), *vocabulary()[0][:300]]
    odd = write_rkllm(tmp_path / f"odd-{NAME}.rkllm", **{"tokenizer.ggml.tokens": ("strings", pieces)})
    with pytest.raises(InputError, match="does not match"):
        pack([odd, TOKENIZER], tmp_path / "b", Wishes())


def test_a_split_gguf(tmp_path: Path) -> None:
    names = [f"gemma-2-it-Q4_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    parts = [write_gguf(tmp_path / name, **{"split.count": ("u16", 2)}) for name in names]
    bundle = pack([*reversed(parts), TOKENIZER], tmp_path / "b", Wishes())
    assert bundle.manifest.cpu is not None and bundle.manifest.cpu.file == names[0]
    assert set(names) < set(bundle.manifest.files)
    assert bundle.manifest.cpu_bytes == sum(part.stat().st_size for part in parts)
    with pytest.raises(InputError, match="a part of 2"):
        pack([parts[0], TOKENIZER], tmp_path / "c", Wishes())


def test_a_lora_goes_along(rkllm: Path, tmp_path: Path) -> None:
    lora = write_rkllm(tmp_path / "pirate_lora.rkllm")
    bundle = pack([rkllm, lora, TOKENIZER], tmp_path / "b", Wishes())
    adapter = bundle.adapter("pirate_lora")
    assert (adapter.npu, adapter.cpu, adapter.rank) == ("pirate_lora.rkllm", None, 0)


def test_files_are_linked_copied_or_moved(rkllm: Path, tmp_path: Path) -> None:
    linked = pack([rkllm, TOKENIZER], tmp_path / "linked", Wishes())
    assert linked.npu_file is not None and linked.npu_file.samefile(rkllm)
    copied = pack([rkllm, TOKENIZER], tmp_path / "copied", Wishes(), way="copy")
    assert copied.npu_file is not None and not copied.npu_file.samefile(rkllm)
    assert copied.manifest == linked.manifest
    moved = pack([rkllm, TOKENIZER], tmp_path / "moved", Wishes(), way="move")
    assert not rkllm.exists() and TOKENIZER.exists()
    moved.verify()


def test_a_link_is_followed(rkllm: Path, tmp_path: Path) -> None:
    link = tmp_path / f"link-{NAME}.rkllm"
    link.symlink_to(rkllm)
    bundle = pack([link, TOKENIZER], tmp_path / "b", Wishes())
    assert bundle.npu_file is not None and not bundle.npu_file.is_symlink()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system at /dev/shm")
def test_across_file_systems_it_is_a_copy(rkllm: Path, tmp_path: Path) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        far = Path(shutil.copy(rkllm, other))
        pack([far, TOKENIZER], tmp_path / "b", Wishes(), way="move").verify()
        assert not far.exists()


def test_nothing_is_moved_when_it_fails(rkllm: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(BundleError, match="exists"):
        pack([rkllm, TOKENIZER], tmp_path / "b", Wishes(), way="move")
    with pytest.raises(BundleError, match="cannot write here"):
        pack([rkllm, TOKENIZER], tmp_path / "no" / "b", Wishes(), way="move")
    assert rkllm.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--family", "llama"], 2, "unknown --family 'llama'"),
        (["--variant", "chat"], 2, "unknown --variant 'chat'"),
        (["--dtype", "w4a16"], 2, "w4a16 is for RK3576"),
        (["--npu-cores", "4"], 2, "an RK3588 has 3"),
        (["--context", "8192"], 2, "over the 4096"),
        (["--copy", "--move"], 2, "choose one"),
        (["--chat-template", "chatml"], 2, "unknown --chat-template"),
    ],
)
def test_wrong_options(
    arguments: list[str], code: int, words: str, rkllm: Path, tmp_path: Path, main: Callable[..., Any]
) -> None:
    done = main("pack", rkllm, "--tokenizer", TOKENIZER, "-o", tmp_path / "b", *arguments)
    assert done.code == code and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "b").exists()


def test_the_verb(rkllm: Path, gguf: Path, tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("pack", rkllm, gguf, "--tokenizer", TOKENIZER, "-o", tmp_path / "b")
    assert done.code == 0 and "model.gguf, model.rkllm, tokenizer.model" in done.stderr
    Bundle.open(tmp_path / "b").verify()


@pytest.mark.board
def test_a_library_that_is_older(
    rkllm: Path, tmp_path: Path, simulator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RK_GEMMA_LIBRKLLMRT", str(simulator("1.2.1")))
    with pytest.raises(InputError, match=r"rkllm-toolkit 1\.3\.1, and .* is librkllmrt 1\.2\.1, which is older"):
        pack([rkllm, TOKENIZER], tmp_path / "b", Wishes())
    pack([rkllm, TOKENIZER], tmp_path / "b", Wishes(force=True))
    monkeypatch.setenv("RK_GEMMA_LIBRKLLMRT", str(simulator("1.3.1")))
    pack([rkllm, TOKENIZER], tmp_path / "c", Wishes())


@pytest.mark.parametrize("two", ["rkllm", "gguf", "tokenizer"])
def test_two_of_a_kind(two: str, rkllm: Path, gguf: Path, tmp_path: Path) -> None:
    given = {"rkllm": rkllm, "gguf": gguf, "tokenizer": TOKENIZER}
    again = tmp_path / f"second-{given[two].name}"
    shutil.copy(given[two], again)
    with pytest.raises(RkGemmaError, match="two"):
        pack([rkllm, gguf, TOKENIZER, again], tmp_path / "b", Wishes())


def test_a_single_part_is_a_whole(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "gemma-2-it-Q4_0-00001-of-00001.gguf")
    assert pack([path], tmp_path / "b", Wishes()).manifest.cpu is not None


def test_parts_of_two_models(tmp_path: Path) -> None:
    parts = [write_gguf(tmp_path / f"{name}-Q4_0-0000{n}-of-00002.gguf") for n, name in ((1, "a"), (2, "b"))]
    with pytest.raises(InputError, match="parts of several models"):
        pack([*parts, TOKENIZER], tmp_path / "c", IT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "not whole"),
        (lambda path: write_rkllm(path, **{"general.architecture": ("string", "llama")}), "a LoRA for llama"),
    ],
)
def test_a_lora_that_cannot_go_along(
    change: Callable[[Path], object], words: str, rkllm: Path, tmp_path: Path
) -> None:
    lora = write_rkllm(tmp_path / "pirate_lora.rkllm")
    change(lora)
    with pytest.raises(InputError, match=words):
        pack([rkllm, lora, TOKENIZER], tmp_path / "b", Wishes())


def test_what_the_file_says_goes_before_an_option(tmp_path: Path) -> None:
    said: list[str] = []
    path = write_gguf(tmp_path / "gemma-2-tiny-it-Q4_0.gguf")
    manifest = pack([path], tmp_path / "b", Wishes(family="gemma"), warn=said.append).manifest
    assert manifest.model.family == "gemma2" and any("family: the option says gemma" in line for line in said)


def test_contradictions_inside_the_file_are_said(tmp_path: Path) -> None:
    path = write_rkllm(tmp_path / f"{NAME}.rkllm", trailer="1.2.0", **{"rkllm.version": ("string", "1.3.1")})
    said: list[str] = []
    pack([path, TOKENIZER], tmp_path / "b", Wishes(), warn=said.append)
    assert any("1.2.0" in line and "1.3.1" in line for line in said)


@pytest.mark.parametrize(("option", "words"), [("--size", "not a size"), ("--toolkit", "not a version")])
def test_words_that_cannot_be(option: str, words: str, rkllm: Path, tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("pack", rkllm, "-o", tmp_path / "b", "--tokenizer", TOKENIZER, option, "banana")
    assert done.code == 2 and words in done.stderr


def test_a_tokenizer_of_another_size_beside_tokens_that_cannot_be_read() -> None:
    chosen = Vocabulary(TOKENIZER.read_bytes(), "t")
    with pytest.raises(InputError, match="2048 pieces, m has 256000 rows"):
        check_vocabulary(chosen, [Tokens("m", 256_000, None)])
    assert check_vocabulary(chosen, [Tokens("m", 2176, None)]) == [
        "t could not be held against the tokens of m, which cannot be read"
    ]


@pytest.mark.parametrize("text", ["---" + "\n" * (1 << 20), "rkllm-toolkit" + " " * (1 << 20), "v" * (1 << 20)])
def test_a_card_is_read_in_a_moment(text: str) -> None:
    start = time.process_time()
    read_card(text)
    assert time.process_time() - start < 5  # it was an hour


@pytest.mark.parametrize(
    "changes",
    [{"tokenizer.ggml.token_type": ("i32s", [9] * 2048)}, {"tokenizer.ggml.scores": ("f32s", [0.0] * 9)}],
)
def test_a_vocabulary_that_lies(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "gemma-2-tiny-it-Q4_0.gguf", **changes)
    with pytest.raises(RkGemmaError, match=r"vocabulary is damaged|no tokenizer"):
        pack([path], tmp_path / "b", Wishes())


def test_end_ids_beyond_a_ggufs_vocabulary_are_passed_over(tmp_path: Path) -> None:
    changes = {"tokenizer.ggml.eot_token_id": ("u32", (1 << 32) - 1)}
    path = write_gguf(tmp_path / "gemma-2-tiny-it-Q4_0.gguf", **changes)
    assert pack([path], tmp_path / "b", Wishes()).manifest.eos == (1, 107)
