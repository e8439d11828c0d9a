"""Tensor values: every dtype, sharded or not, against what the safetensors package wrote."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import (
    DATA,
    GEMMA1,
    GEMMA2,
    bf16_exact,
    encoded,
    random_weights,
    write_checkpoint,
    write_safetensors,
    write_shards,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rk_gemma.checkpoint import Checkpoint, reader
from rk_gemma.checkpoint.names import expected_shapes
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_with_package(path: Path, weights: dict[str, Any], dtype: str) -> None:
    package = pytest.importorskip("safetensors", reason="pip install safetensors to compare with the package")
    raw = {name: np.frombuffer(encoded(w, dtype), np.uint8) for name, w in weights.items()}
    specs = {
        name: package.TensorSpec(
            dtype=PACKAGE_NAMES[dtype], shape=list(w.shape), data_ptr=raw[name].ctypes.data, data_len=raw[name].size
        )
        for name, w in weights.items()
    }
    package.serialize_file(specs, path)


def expected(values: Any, dtype: str) -> Any:
    return values.astype(np.float16).astype(np.float32) if dtype == "F16" else values


@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values_as_the_package_wrote_them(dtype: str, config: dict[str, Any], tmp_path: Path) -> None:
    weights = random_weights(config)
    write_checkpoint(tmp_path, config, {})
    write_with_package(tmp_path / "model.safetensors", weights, dtype)
    checkpoint = Checkpoint.open(tmp_path)
    assert set(checkpoint.tensors) == set(weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].read(), expected(values, dtype))


def test_the_package_reads_what_these_tests_write(tmp_path: Path) -> None:
    numpy_side = pytest.importorskip("safetensors.numpy", reason="pip install safetensors")
    weights = random_weights(GEMMA2)
    read = numpy_side.load_file(write_safetensors(tmp_path / "x", weights, "F32"))
    assert all(np.array_equal(read[name], values) for name, values in weights.items())


@pytest.mark.parametrize("name", ["tiny-gemma1", "tiny-gemma2"])
def test_golden_checkpoints_against_the_package(name: str) -> None:
    numpy_side = pytest.importorskip("safetensors.numpy", reason="pip install safetensors")
    truth = numpy_side.load_file(DATA / name / "model.safetensors")
    checkpoint = Checkpoint.open(DATA / name)
    for tensor in expected_shapes(checkpoint.spec):
        np.testing.assert_array_equal(checkpoint.tensors[tensor].read(), truth[tensor].astype(np.float32))


@given(bits=st.lists(st.integers(0, 0xFFFF), min_size=64, max_size=64), dtype=st.sampled_from(["F16", "BF16"]))
@settings(max_examples=50, deadline=None)
def test_any_bits(bits: list[int], dtype: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Finite and plausible values come back bit for bit, others are refused."""
    path = tmp_path_factory.getbasetemp() / "any-bits"
    raw = np.array(bits, "<u2")
    path.write_bytes(raw.tobytes())
    truth = raw.view("<f2").astype(np.float32) if dtype == "F16" else (raw.astype(np.uint32) << 16).view(np.float32)
    tensor = reader.Tensor("t", path, dtype, (8, 8), 0)
    if np.isfinite(truth).all() and np.abs(truth).max() < reader.IMPLAUSIBLE:
        np.testing.assert_array_equal(tensor.read().ravel(), truth)
    else:
        with pytest.raises(CheckpointError, match="tensor t holds"):
            tensor.read()


def test_blocks_are_bounded_and_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path))
    tensor = checkpoint.tensors["model.embed_tokens.weight"]
    whole = tensor.read()
    monkeypatch.setattr(reader, "BLOCK_BYTES", 10 * 64 * 4)
    blocks = list(tensor.blocks())
    assert [len(b) for b in blocks] == [10] * 12 + [8]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_shards_hold_the_same_weights(tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    write_checkpoint(tmp_path)
    write_shards(tmp_path, weights)
    checkpoint = Checkpoint.open(tmp_path)
    assert len({t.path for t in checkpoint.tensors.values()}) == 3
    assert all(np.array_equal(checkpoint.tensors[name].read(), w) for name, w in weights.items())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e6])
@pytest.mark.parametrize("tensor", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"])
def test_damaged_value_is_refused(value: float, tensor: str, tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    weights[tensor][-1, -1] = value
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, GEMMA2, weights, "F32"))
    with pytest.raises(CheckpointError, match=tensor):
        checkpoint.tensors[tensor].read()


def test_file_that_shrinks_after_opening(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match="ends inside tensor"):
        for tensor in checkpoint.tensors.values():
            tensor.read()


@pytest.mark.parametrize("right", [True, False])
def test_the_hubs_sha256(right: bool, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    note(tmp_path, digest if right else "0" * 64)
    if right:
        assert Checkpoint.open(tmp_path).spec.shape.vocab == 128
    else:
        with pytest.raises(CheckpointError, match=r"model\.safetensors: sha256 differs from the hub's"):
            Checkpoint.open(tmp_path)


@pytest.mark.parametrize("etag", ["", "0" * 40, '"abc"'])
def test_a_note_without_sha256_proves_nothing(etag: str, tmp_path: Path) -> None:
    note(write_checkpoint(tmp_path), etag)
    assert Checkpoint.open(tmp_path).tensors


def note(directory: Path, etag: str) -> None:
    folder = directory / ".cache/huggingface/download"
    folder.mkdir(parents=True)
    (folder / "model.safetensors.metadata").write_text(f"{'c' * 40}\n{etag}\n1700000000.0\n")


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    first = Checkpoint.open(tmp_path).fingerprint()
    assert Checkpoint.open(tmp_path).fingerprint() == first
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 107]}))
    second = Checkpoint.open(tmp_path).fingerprint()
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    assert len({first, second, Checkpoint.open(tmp_path).fingerprint()}) == 3


def test_bf16_exact_is_exact() -> None:
    values = bf16_exact(np.array([1.0, -0.3333, 1e-20], np.float32))
    assert np.array_equal((np.frombuffer(encoded(values, "BF16"), "<u2").astype(np.uint32) << 16).view("f4"), values)
