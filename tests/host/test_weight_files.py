"""Several files of weights in one directory: what is taken, and why, is said; or it is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpointkit import quantised, write_raw
from hosttools import GEMMA2, errors_of, random_weights, write_checkpoint, write_safetensors, write_shards

from rk_gemma.checkpoint import Checkpoint
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FIRST, SECOND = random_weights(GEMMA2, 1), random_weights(GEMMA2, 2)
NAME = "model.norm.weight"


def taken(directory: Path) -> tuple[int, str]:
    """Which seed was read, and the line about it."""
    checkpoint = Checkpoint.open(directory)
    values = checkpoint.tensors[NAME].read()
    seed = 1 if np.array_equal(values, FIRST[NAME]) else 2
    truth = FIRST if seed == 1 else SECOND
    assert all(np.array_equal(checkpoint.tensors[name].read(), truth[name]) for name in truth)
    assert len(checkpoint.notes) <= 1
    return seed, "".join(checkpoint.notes)


def both(directory: Path, shards: int = 2) -> list[str]:
    """model.safetensors with the first weights, an index and shards with the second."""
    write_checkpoint(directory)
    names = write_shards(directory, SECOND, shards)
    write_safetensors(directory / SINGLE, FIRST)
    return names


@pytest.mark.parametrize("count", [1, 2, 3])
def test_index_of_shards_that_are_gone(count: int, tmp_path: Path) -> None:
    for shard in both(tmp_path, count):
        (tmp_path / shard).unlink()
    seed, note = taken(tmp_path)
    assert seed == 1
    assert f"taken from {SINGLE}" in note and INDEX in note and f"{count} of {count} shards missing" in note


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": {"a": "../b"}}', '{"weight_map": {}}'])
def test_index_that_is_damaged_beside_a_whole_file(index: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, GEMMA2, FIRST)
    (tmp_path / INDEX).write_text(index)
    seed, note = taken(tmp_path)
    assert seed == 1 and f"taken from {SINGLE}" in note and INDEX in note


@pytest.mark.parametrize("count", [1, 3])
def test_both_are_whole_and_differ(count: int, tmp_path: Path) -> None:
    """transformers takes the single file."""
    shards = both(tmp_path, count)
    seed, note = taken(tmp_path)
    assert seed == 1
    assert f"taken from {SINGLE}, as transformers does" in note and f"not read: {shards[0]}" in note


@pytest.mark.parametrize("fault", ["truncated", "a tensor lacks", "quantised", "broken link", "LFS pointer"])
def test_the_single_file_is_not_whole_and_the_shards_are(fault: str, tmp_path: Path) -> None:
    both(tmp_path)
    path = tmp_path / SINGLE
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    elif fault == "a tensor lacks":
        write_safetensors(path, {name: w for name, w in FIRST.items() if name != NAME})
    elif fault == "quantised":
        write_raw(path, quantised("fp8"))
    else:
        path.unlink()
        if fault == "broken link":
            path.symlink_to("nowhere")
        else:
            path.write_text("version https://git-lfs.github.com/spec/v1\n" + "x" * 80)
    seed, note = taken(tmp_path)
    assert seed == 2
    assert f"taken from {INDEX}" in note and f"not usable: {SINGLE}" in note


def test_none_is_whole(tmp_path: Path) -> None:
    """The first one's fault is told."""
    second = both(tmp_path)[1]
    (tmp_path / second).unlink()
    (tmp_path / SINGLE).write_bytes((tmp_path / SINGLE).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=rf"{SINGLE}: truncated"):
        Checkpoint.open(tmp_path)


def test_index_that_names_the_single_file(tmp_path: Path) -> None:
    """mlx-lm writes one so; there is only one set then."""
    write_checkpoint(tmp_path, GEMMA2, FIRST)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(FIRST, SINGLE)}))
    assert taken(tmp_path) == (1, "")


@pytest.mark.parametrize("count", [1, 3])
def test_index_of_another_number_of_shards(count: int, tmp_path: Path) -> None:
    """Saved again in other pieces: the row that is whole is taken."""
    write_checkpoint(tmp_path)
    write_shards(tmp_path, SECOND, count)
    stale = {"weight_map": dict.fromkeys(SECOND, "model-00001-of-00005.safetensors")}
    (tmp_path / INDEX).write_text(json.dumps(stale))
    seed, note = taken(tmp_path)
    assert seed == 2 and f"-of-{count:05d}" in note and "1 of 1 shards missing" in note


@pytest.mark.parametrize("count", [1, 3])
def test_shards_without_an_index(count: int, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_shards(tmp_path, SECOND, count)
    (tmp_path / INDEX).unlink()
    assert taken(tmp_path)[0] == 2


def test_a_row_with_a_gap_and_no_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    shards = write_shards(tmp_path, SECOND, 3)
    (tmp_path / INDEX).unlink()
    (tmp_path / shards[0]).unlink()
    with pytest.raises(CheckpointError, match=r"2 of 3 numbered files are here .*download the rest"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "weights.safetensors", "model.fp16.safetensors"])
def test_one_file_of_another_name(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / SINGLE).unlink()
    write_safetensors(tmp_path / name, SECOND)
    assert taken(tmp_path)[0] == 2


def test_two_files_of_other_names(tmp_path: Path, main: Callable[..., Any]) -> None:
    source = write_checkpoint(tmp_path / "src")
    (source / SINGLE).unlink()
    for name in ("a", "b"):
        write_safetensors(source / f"{name}.safetensors", SECOND)
    done = main("export", source, "-o", tmp_path / "out")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert "2 files that could be meant: a.safetensors, b.safetensors" in errors_of(done.stderr)[0]


def test_only_an_adapter(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / SINGLE).rename(tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="LoRA adapter, not a model"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["gemma-2b.gguf", "pytorch_model.bin", "adapter_model.safetensors", "consolidated.safetensors"]
)
def test_what_lies_beside_is_said(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, GEMMA2, FIRST)
    (tmp_path / name).write_bytes(b"x")
    seed, note = taken(tmp_path)
    assert seed == 1 and f"not read: {name}" in note


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_trainers_state_is_not_weights(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, GEMMA2, FIRST)
    (tmp_path / name).write_bytes(b"x")
    assert taken(tmp_path) == (1, "")


@pytest.mark.parametrize("home", [0, 1])
def test_a_tensor_in_two_shards(home: int, tmp_path: Path) -> None:
    """The index says which one is meant; without one it is refused."""
    write_checkpoint(tmp_path)
    shards = write_shards(tmp_path, SECOND, 2)
    index = json.loads((tmp_path / INDEX).read_text())
    right, wrong = shards[home], shards[1 - home]
    for shard, value in ((right, SECOND[NAME]), (wrong, FIRST[NAME])):
        held = {t: w for t, w in SECOND.items() if index["weight_map"][t] == shard and t != NAME}
        write_safetensors(tmp_path / shard, {**held, NAME: value})
    index["weight_map"][NAME] = right
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert taken(tmp_path) == (2, "")
    (tmp_path / INDEX).unlink()
    with pytest.raises(CheckpointError, match=f"{NAME} is in .* too"):
        Checkpoint.open(tmp_path)


def test_index_that_misplaces_a_tensor(tmp_path: Path) -> None:
    """It lies in another of the files: that is enough."""
    write_checkpoint(tmp_path)
    write_shards(tmp_path, SECOND, 2)
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    index["weight_map"] = {t: shards[1 - shards.index(s)] for t, s in index["weight_map"].items()}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert taken(tmp_path)[0] == 2


def test_the_command_says_it_once(tmp_path: Path, main: Callable[..., Any]) -> None:
    both(tmp_path / "src")
    done = main("export", tmp_path / "src", "-o", tmp_path / "out", "--cpu", "none")
    assert done.code == 0
    assert done.stderr.count("as transformers does") == 1
    assert "warning: " in next(line for line in done.stderr.splitlines() if "as transformers" in line)
