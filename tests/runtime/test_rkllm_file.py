"""`.rkllm` files read without the vendor's library: synthetic ones, written from the public reports."""

from __future__ import annotations

import json
import random
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from rkllmkit import Rkllm, gemma_keys, make_mask
from runtimekit import one_line

from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.rkllmfile.describe import FIELDS, describe
from rk_gemma_runtime.rkllmfile.source import BytesSource, FileSource
from rk_gemma_runtime.rkllmfile.vocabulary import tokens

if TYPE_CHECKING:
    from pathlib import Path

    from runtimekit import Cli

    from rk_gemma_runtime.rkllmfile.describe import Description

RIGHT = {
    "toolkit": "1.3.1", "platform": "RK3588", "npu_cores": 3, "max_context": 4096, "architecture": "gemma2",
    "vocab": 256, "dtype": "FP16", "tokenizer": True, "embedding": True,
}  # fmt: skip
SPACES = "\u2581" * 31


def read(data: bytes) -> Description:
    return describe(BytesSource(data))


def values(found: Description) -> dict[str, Any]:
    return {name: value.value if value else None for name, value in found.fields.items()}


@pytest.mark.parametrize("seed", range(6))
def test_every_value_is_read_under_any_mask_and_order(seed: int) -> None:
    names = list(gemma_keys().items())
    head, rest = names[:1], names[1:]
    random.Random(seed).shuffle(rest)
    found = read(Rkllm(keys=dict(head + rest), mask=make_mask(seed)).data())
    assert values(found) == RIGHT and found.notes == ()
    assert (found.kind.name, found.whole) == ("rkllm", "yes")
    assert found.shape == {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 128}
    assert (found.bos, found.eos) == (2, (1,))


@pytest.mark.parametrize("seed", range(3))
def test_the_architecture_may_stand_anywhere_and_the_magic_be_another(seed: int) -> None:
    names = list(gemma_keys().items())
    random.Random(seed).shuffle(names)
    found = read(Rkllm(keys=dict(names), mask=random.Random(seed).randbytes(256)).data())
    assert values(found) == RIGHT


def test_no_published_mask_is_needed() -> None:
    """None of its bytes but the four of the magic stand in the product."""
    source = (FileSource.__module__, describe.__module__)
    assert all(name.startswith("rk_gemma_runtime.rkllmfile") for name in source)
    ours = Rkllm(mask=bytes(255 - byte for byte in make_mask(9)))
    assert values(read(ours.data())) == RIGHT


def test_a_vocabulary_of_256k_is_walked_in_half_a_second_and_no_memory(tmp_path: Path) -> None:
    keys = gemma_keys(vocab=256_000)
    later = {name: keys.pop(name) for name in ("rkllm.platform", "rkllm.core_num", "rkllm.max_context")}
    file = tmp_path / "large.rkllm"
    with file.open("wb") as out:
        out.write(Rkllm(keys=keys | later, tensors=()).head())
        out.seek(10 << 30)
        out.write(b"rkllm-toolkit version: 1.3.1")
    start = time.process_time()
    with FileSource(file) as source:
        found = describe(source)
    assert time.process_time() - start < 5  # it takes 0.05; the rest is a slow machine's
    assert values(found) == RIGHT | {"vocab": 256_000, "embedding": True}


def test_tokens_come_out_where_the_longest_gives_the_mask() -> None:
    words = [f"word{i}" for i in range(100)] + [SPACES, "größe", "日本語"]
    keys = gemma_keys(vocab=len(words)) | {"tokenizer.ggml.tokens": ("strings", words)}
    source = BytesSource(Rkllm(keys=keys).data())
    read_keys = describe(source).keys
    assert read_keys is not None
    out = tokens(source, read_keys)
    assert out is not None and [token.decode() for token in out] == words


def test_tokens_that_the_mask_does_not_reach_are_not_guessed() -> None:
    words = ["x" * 70, "y"]
    keys = gemma_keys(vocab=2) | {"tokenizer.ggml.tokens": ("strings", words)}
    source = BytesSource(Rkllm(keys=keys).data())
    read_keys = describe(source).keys
    assert read_keys is not None and tokens(source, read_keys) is None


@pytest.mark.parametrize(
    ("key", "given", "field", "value", "sure"),
    [
        ("rkllm.platform", ("u32", 2), "platform", "unknown code 2", "low"),
        ("general.file_type", ("u32", 17), "dtype", "unknown code 17", "low"),
        ("rkllm.platform", None, "platform", None, None),
        ("rkllm.has_tokenizer", ("bool", False), "tokenizer", False, "high"),
        ("rkllm.has_tokenizer", None, "tokenizer", True, "medium"),
        ("rkllm.max_context", ("i32", 16384), "max_context", 16384, "high"),
        ("rkllm.core_num", ("u64", 1), "npu_cores", 1, "high"),
    ],
)
def test_each_value_says_how_sure_it_is(key: str, given: Any, field: str, value: Any, sure: str | None) -> None:
    found = read(Rkllm(keys=gemma_keys(**{key: given})).data()).fields[field]
    assert (found.value, found.sure) == (value, sure) if found else value is None


@pytest.mark.parametrize(
    ("end", "version"),
    [
        (b"rkllm-toolkit version: 1.1.4", "1.1.4"),
        (b"rkllm-toolkit version: 1.2.1b1", "1.2.1b1"),
        (b"rkllm-toolkit version: 1.1.4\0", "1.1.4"),
        (b"rkllm-toolkit version: 1.1.4\n", "1.1.4"),
        (b"", None),
        (b"rkllm-toolkit version: 1.", None),
    ],
)
def test_the_trailer(end: bytes, version: str | None) -> None:
    keys = gemma_keys(**{"rkllm.version": None})
    found = read(Rkllm(keys=keys, trailer=end).data())
    assert values(found)["toolkit"] == version
    assert found.whole == ("yes" if version else "unknown")


def test_contradictions_are_said() -> None:
    keys = gemma_keys(**{"rkllm.version": ("string", "1.2.3"), "gemma2.vocab_size": ("u32", 300)})
    found = read(Rkllm(keys=keys).data())
    assert values(found)["toolkit"] == "1.3.1" and found.fields["toolkit"].sure == "medium"  # type: ignore[union-attr]
    assert len(found.notes) == 2 and "1.2.3" in found.notes[0] and "300" in found.notes[1]


def test_cut_anywhere_it_is_never_called_whole() -> None:
    made = Rkllm()
    data, head = made.data(), len(made.head())
    for place in range(0, len(data), len(data) // 200):
        found = read(data[:place])
        assert found.whole != "yes", place
        if 8 <= place < head - 32:
            assert (found.kind.name, found.whole) == ("rkllm", "no"), place


def test_a_download_with_room_and_no_content() -> None:
    made = Rkllm(trailer=b"")
    found = read(made.head() + bytes(1 << 20))
    assert found.whole == "no" and "zeros" in found.end


@pytest.mark.parametrize("place", [8, 16, 24])
@pytest.mark.parametrize("value", [0, 1 << 16, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_lying_lengths(place: int, value: int) -> None:
    data = bytearray(Rkllm().data())
    struct.pack_into("<Q", data, place, value)
    found = read(bytes(data))
    assert found.kind.name == "rkllm"
    assert set(found.fields) == set(FIELDS)


@pytest.mark.parametrize("seed", range(4))
def test_mutations_never_raise(seed: int) -> None:
    made = Rkllm(body=4096)
    data, pick = made.data(), random.Random(seed)
    for _ in range(250):
        broken = bytearray(data)
        for _ in range(pick.randint(1, 8)):
            broken[pick.randrange(len(made.head()))] = pick.randrange(256)
        found = read(bytes(broken))
        json.dumps(found.tree())
        if found.keys is not None:
            out = tokens(BytesSource(bytes(broken)), found.keys)
            assert out is None or sum(1 for _ in out) >= 0


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "an empty file"),
        (bytes(5000), "zeros", "zeros"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3738346748\n",
            "lfs_pointer",
            "3738346748",
        ),
        (b"<!DOCTYPE html><html><title>Not here</title>", "html", "Not here"),
        (b"\n<HTML>", "html", "web page"),
        (b'{"error":"Repository not found"}', "json", "Repository not found"),
        (b"Entry not found", "other", "error message"),
        (b"Access to model google/gemma-2-2b-it is restricted.", "other", "error message"),
        (b"GGUF\3\0\0\0" + bytes(50), "gguf", "GGUF"),
        (b"RKNN" + bytes(50), "other", ".rknn"),
        (b"PK\3\4" + bytes(50), "other", "zip"),
        (struct.pack("<Q", 20) + b'{"__metadata__":{}}   ', "other", "safetensors"),
        (random.Random(3).randbytes(5000), "other", "neither"),
        (b"once upon a time", "other", "text"),
    ],
)
def test_what_is_not_one_is_named(data: bytes, kind: str, words: str, tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "model.rkllm"
    file.write_bytes(data)
    done = cli("inspect", file, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["kind"] == kind
    assert words in one_line(done.stderr)


def test_the_verb(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "model.rkllm"
    file.write_bytes(Rkllm().data())
    tree = json.loads(cli("inspect", file, "--json").stdout)
    assert tree["max_context"] == {"value": 4096, "from": "key rkllm.max_context", "sure": "high"}
    lines = cli("inspect", file).stdout.splitlines()
    assert "toolkit      1.3.1 (trailer)" in lines
    report = cli("inspect", file, "--report").stdout
    assert report.splitlines()[3].startswith("head   da ee b3 36 03 00 00 00")
    assert "key    rkllm.max_context (u32, at " in report
    file.write_bytes(Rkllm().data()[:700])
    cut = cli("inspect", file)
    assert cut.returncode == 3 and "not whole" in one_line(cut.stderr)


@pytest.mark.parametrize("given", ["missing", "directory"])
def test_no_such_file(given: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        FileSource(tmp_path if given == "directory" else tmp_path / given)


@pytest.mark.parametrize(
    ("key", "given", "field"),
    [("rkllm.core_num", ("i32", -1), "npu_cores"), ("rkllm.core_num", ("u32", 99), "npu_cores"),
     ("rkllm.max_context", ("u64", 1 << 63), "max_context")],
)  # fmt: skip
def test_numbers_that_no_model_has(key: str, given: Any, field: str) -> None:
    found = read(Rkllm(keys=gemma_keys(**{key: given})).data())
    assert found.fields[field] is None and any(field in note for note in found.notes)


def test_ids_beyond_the_vocabulary() -> None:
    found = read(Rkllm(keys=gemma_keys(**{"tokenizer.ggml.eos_token_id": ("u32", (1 << 32) - 1)})).data())
    assert found.eos == () and any("eos" in note for note in found.notes)


def test_a_tensor_count_that_looks_like_an_index() -> None:
    data = bytearray(Rkllm().data())
    data[8] = ord("{")
    assert read(bytes(data)).kind.name == "rkllm"
