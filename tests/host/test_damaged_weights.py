"""Safetensors files that are not what they say. Never another exception than CheckpointError, never wrong weights."""

from __future__ import annotations

import json
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import GEMMA2, random_weights, shapes_of, write_checkpoint, write_safetensors, write_shards

from rk_gemma.checkpoint import Checkpoint
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = {**GEMMA2, "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 8}  # fmt: skip
FILE = "model.safetensors"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, SMALL)


def facts(directory: Path) -> dict[str, tuple[Any, ...]]:
    tensors = Checkpoint.open(directory).tensors
    return {name: (tensors[name].dtype, tensors[name].shape, tensors[name].offset) for name in shapes_of(SMALL)}


def header_length(raw: bytes) -> int:
    return 8 + int(struct.unpack_from("<Q", raw)[0])


def variants(raw: bytes, thorough: bool) -> Iterator[bytes]:
    """Bits of length and header flipped, and bytes replaced by some that mean something to JSON."""
    for at in range(header_length(raw)):
        flips = range(8) if thorough or at < 8 else range(at % 8, 8, 8 + at % 3)
        swaps = b'e"' if thorough else b"e" * (raw[at] in b"0123456789")
        for value in {raw[at] ^ 1 << bit for bit in flips} | set(swaps):
            if value != raw[at]:
                yield raw[:at] + bytes([value]) + raw[at + 1 :]


@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_damaged_header(thorough: bool, small: Path) -> None:
    """Refused in one line, or read as it was: where every tensor lies is the same."""
    path, truth = small / FILE, facts(small)
    outcomes = Counter[str]()
    for damaged in variants(path.read_bytes(), thorough):
        path.write_bytes(damaged)
        outcomes[outcome(small, truth)] += 1
    assert outcomes["refused"] > 1000
    assert set(outcomes) <= {"refused", "read as it was"}


def outcome(directory: Path, truth: dict[str, tuple[Any, ...]]) -> str:
    try:
        return "read as it was" if facts(directory) == truth else "read wrongly"
    except CheckpointError as error:
        return "refused" if "\n" not in str(error) else "two lines"
    except Exception as error:
        return repr(error)


def test_truncated_at_every_length(small: Path) -> None:
    path = small / FILE
    raw = path.read_bytes()
    for length in {*range(0, len(raw), 29), *range(20), len(raw) - 1}:
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"truncated|no safetensors header"):
            Checkpoint.open(small)


def test_bytes_after_the_last_tensor(small: Path) -> None:
    """The format has the data end where the file ends; a header whose length is off by one shows here."""
    path = small / FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=FILE):
        Checkpoint.open(small)


def rewritten(path: Path, change: dict[str, Any]) -> None:
    raw = path.read_bytes()
    end = header_length(raw)
    head = json.dumps({**json.loads(raw[8:end]), **change}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + raw[end:])


@pytest.mark.parametrize(
    "fact",
    [
        {"dtype": "F32", "shape": [8], "data_offsets": [0, 10**400]},
        {"dtype": "BF16", "shape": [8], "data_offsets": [0, float("inf")]},
        {"dtype": "BF16", "shape": [8], "data_offsets": [float("nan"), 16]},
        {"dtype": "BF16", "shape": [8], "data_offsets": [0, 8, 16]},
        {"dtype": "BF16", "shape": [8], "data_offsets": [-16, 0]},
        {"dtype": "BF16", "shape": [-2, -4], "data_offsets": [0, 16]},
        {"dtype": "BF16", "shape": [2, 2, 2], "data_offsets": [0, 16]},
        {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]},
        {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]},
        {"dtype": ["BF16"], "shape": [8], "data_offsets": [0, 16]},
        {"dtype": "BF16", "shape": ["8"], "data_offsets": [0, 16]},
        {"dtype": "BF16", "shape": [8.0], "data_offsets": [0, 16]},
        {"dtype": "BF16", "shape": [8], "data_offsets": ["0", "16"]},
        {"dtype": "BF16", "shape": [8, True], "data_offsets": [0, 16]},
        {"dtype": "BF16", "shape": None, "data_offsets": [0, 16]},
        {"shape": [8], "data_offsets": [0, 16]},
        ["BF16", [8], [0, 16]],
        None,
    ],
)
def test_impossible_tensor(fact: Any, small: Path) -> None:
    rewritten(small / FILE, {"model.norm.weight": fact})
    with pytest.raises(CheckpointError, match=FILE):
        Checkpoint.open(small)


def test_two_tensors_in_one_place(small: Path) -> None:
    raw = (small / FILE).read_bytes()
    header = json.loads(raw[8 : header_length(raw)])
    twin = header["model.layers.0.input_layernorm.weight"]
    rewritten(small / FILE, {"model.norm.weight": twin})
    with pytest.raises(CheckpointError, match=FILE):
        Checkpoint.open(small)


@pytest.mark.parametrize("head", [b"[]", b"3", b"[" * 50_000, b"{}", b"\xff\xfe{}"])
def test_header_is_no_object(head: bytes, small: Path) -> None:
    (small / FILE).write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(CheckpointError):
        Checkpoint.open(small)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "empty"), (b"<!DOCTYPE html>\n" * 9, "web page"), (b"  \n<html>" * 9, "web page"),
     (b"Entry not found" * 9, "wrong name"), (b'{"error": "Access to model google/gemma-2-2b"}', "error"),
     (b"Access to model google/gemma-2-2b is restricted", "accept the licence"), (b"PK\3\4" + bytes(99), "zip"),
     (b"\x80\x02}q\x00X\x05\0\0\0state" * 9, "pickle"), (b"GGUF\3\0\0\0" + bytes(99), "GGUF"),
     (b"\x1f\x8b\x08" + bytes(99), "gzip"), (b"\0" * 64, "0 bytes in a file of 64")],
)  # fmt: skip
def test_another_file_in_its_place(data: bytes, says: str, small: Path) -> None:
    (small / FILE).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"no safetensors header: .*{says}"):
        Checkpoint.open(small)


@pytest.mark.parametrize("length", [0x80, 0x3C, 0x20, 0x0A, 10_000_000, 1 << 40, (1 << 64) - 1])
def test_a_length_that_is_wrong(length: int, small: Path) -> None:
    """Its first byte may be a pickle's or a web page's."""
    (small / FILE).write_bytes(struct.pack("<Q", length) + b'{"a"')
    with pytest.raises(CheckpointError, match=f"it would have {length} bytes in a file of 12"):
        Checkpoint.open(small)


@pytest.mark.parametrize("twice", ["model.norm.weight", "unknown"])
def test_a_tensor_twice_in_one_header(twice: str, small: Path) -> None:
    raw = (small / FILE).read_bytes()
    end = header_length(raw)
    entry = json.dumps({twice: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})[1:-1].encode()
    head = b"{" + entry + b"," + entry + b"," + raw[9:end]
    (small / FILE).write_bytes(struct.pack("<Q", len(head)) + head + raw[end:])
    with pytest.raises(CheckpointError, match=f"{twice} is there twice"):
        Checkpoint.open(small)


def test_git_lfs_pointer(small: Path) -> None:
    (small / FILE).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 4988025760\n")
    with pytest.raises(CheckpointError, match="LFS pointer"):
        Checkpoint.open(small)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"])
def test_wrong_shape_names_both(name: str, small: Path) -> None:
    weights = random_weights(SMALL)
    weights[name] = np.concatenate([weights[name], weights[name]])
    write_safetensors(small / FILE, weights)
    with pytest.raises(CheckpointError, match=rf"{name} has shape \[16.*config.json wants \[8"):
        Checkpoint.open(small)


def test_every_tensor_is_needed(small: Path) -> None:
    weights = random_weights(SMALL)
    for name in weights:
        write_safetensors(small / FILE, {k: v for k, v in weights.items() if k != name})
        with pytest.raises(CheckpointError, match=name):
            Checkpoint.open(small)


def test_missing_shard_is_named(small: Path) -> None:
    second = write_shards(small, random_weights(SMALL))[1]
    (small / second).unlink()
    with pytest.raises(CheckpointError, match=rf"1 of 3 shards missing \(first: {second}\)"):
        Checkpoint.open(small)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b", "..", "", ".", 5, None, "x" * 300, "\0"]
)
def test_shard_name_that_leaves(shard: Any, small: Path) -> None:
    write_checkpoint(small.parent, SMALL)
    (small / FILE).unlink()
    (small / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    with pytest.raises(CheckpointError, match=r"leaves the directory|missing|not a safetensors index"):
        Checkpoint.open(small)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}',
                                   '{"weight_map": {"a": [1]}}', '{"weight_map": {"a": 1, "b": "c"}}'])  # fmt: skip
def test_damaged_index(index: str, small: Path) -> None:
    (small / FILE).unlink()
    (small / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError):
        Checkpoint.open(small)


@pytest.mark.parametrize("kind", ["absent", "directory", "dangling link"])
def test_no_weights(kind: str, small: Path) -> None:
    (small / FILE).unlink()
    if kind == "directory":
        (small / FILE).mkdir()
    elif kind == "dangling link":
        (small / FILE).symlink_to("nowhere")
    with pytest.raises(CheckpointError):
        Checkpoint.open(small)


def test_no_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / ("n" * 300)):
        with pytest.raises(CheckpointError, match=path.name):
            Checkpoint.open(path)
