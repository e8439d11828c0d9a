"""LLM.int8 checkpoints of bitsandbytes: the numbers that they stand for, exactly, in every spelling."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpointkit import write_raw
from hosttools import DATA, GEMMA2, environment, shapes_of, write_safetensors

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.checkpoint.header import read_header
from rk_gemma.export.pipeline import Options, export
from rk_gemma.export.plain import write_weights
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = ("tiny-gemma1-bnb8", "tiny-gemma-bnb8")
Q = "model.layers.0.self_attn.q_proj"


def stored(source: Path) -> dict[str, Any]:
    """Read a file's tensors as bytes."""
    data = (source / "model.safetensors").read_bytes()
    return {
        t.name: (t.dtype, t.shape, data[t.offset : t.offset + t.size])
        for t in read_header(source / "model.safetensors")
    }


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    target.mkdir()
    shutil.copy(source / "config.json", target)
    write_raw(target / "model.safetensors", change(stored(source)))
    return target


@pytest.mark.parametrize("name", TINY)
def test_the_numbers_are_bitsandbytes_own(name: str) -> None:
    checkpoint = Checkpoint.open(DATA / name)
    golden = np.load(DATA / name / "golden.npz")
    wanted = [key for key in golden.files if key.startswith("dequant:")]
    assert len(wanted) == 2
    for key in wanted:
        assert np.array_equal(checkpoint.tensors[key.removeprefix("dequant:")].read(), golden[key])
    assert [line.partition(": ")[2] for line in checkpoint.notes] == [
        "int8 weights of bitsandbytes are read as the numbers that they stand for"
    ]


SPELLINGS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "compiled": lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()},
    "bare": lambda t: {name.removeprefix("model."): tensor for name, tensor in t.items()},
    "no formats": lambda t: {name: tensor for name, tensor in t.items() if not name.endswith("weight_format")},
    "reversed": lambda t: dict(reversed(t.items())),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read_the_same(spelling: str, tmp_path: Path) -> None:
    whole = Checkpoint.open(DATA / TINY[1])
    other = Checkpoint.open(changed(DATA / TINY[1], tmp_path / "x", SPELLINGS[spelling]))
    assert all(np.array_equal(whole.tensors[n].read(), other.tensors[n].read()) for n in whole.tensors)


def test_scales_may_lie_in_another_shard(tmp_path: Path) -> None:
    shutil.copy(DATA / TINY[0] / "config.json", tmp_path)
    tensors = stored(DATA / TINY[0])
    parts = [{n: t for n, t in tensors.items() if n.endswith(".SCB") == last} for last in (False, True)]
    names = [f"model-{n}-of-00002.safetensors" for n in ("00001", "00002")]
    for name, part in zip(names, parts, strict=True):
        write_raw(tmp_path / name, part)
    homes = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    whole, other = Checkpoint.open(DATA / TINY[0]), Checkpoint.open(tmp_path)
    assert all(np.array_equal(whole.tensors[n].read(), other.tensors[n].read()) for n in whole.tensors)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "col32": (lambda t: {f"{Q}.weight_format": ("U8", (), b"\1")}, "col32"),
    "col_turing": (lambda t: {f"{Q}.weight_format": ("U8", (), b"\2")}, "col_turing"),
    "col_ampere": (lambda t: {f"{Q}.weight_format": ("U8", (), b"\3")}, "col_ampere"),
    "unknown": (lambda t: {f"{Q}.weight_format": ("U8", (), b"\x09")}, "an unknown layout"),
    "two bytes": (lambda t: {f"{Q}.weight_format": ("U8", (2,), b"\0\0")}, "an unknown layout"),
    "short scales": (lambda t: {f"{Q}.SCB": ("F32", (2,), bytes(8))}, "do not fit"),
    "half scales": (lambda t: {f"{Q}.SCB": ("F16", (64,), bytes(128))}, "do not fit"),
    "no scales": (lambda t: {f"{Q}.SCB": None}, "quantised"),
    "nan": (lambda t: {f"{Q}.SCB": ("F32", (64,), np.full(64, np.nan, np.float32).tobytes())}, "NaN or infinity"),
    "huge": (lambda t: {f"{Q}.SCB": ("F32", (64,), np.full(64, 1e30, np.float32).tobytes())}, "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_read_is_refused(damage: str, tmp_path: Path) -> None:
    make, said = DAMAGE[damage]

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        merged = {**tensors, **make(tensors)}
        return {name: tensor for name, tensor in merged.items() if tensor is not None}

    source = changed(DATA / TINY[1], tmp_path / "x", change)
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(source).tensors[f"{Q}.weight"].read()


@pytest.mark.parametrize("name", TINY)
def test_an_export_is_that_of_the_plain_numbers(name: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(DATA / name)
    plain = tmp_path / "same"
    plain.mkdir()
    config = json.loads((DATA / name / "config.json").read_text())
    del config["quantization_config"]
    (plain / "config.json").write_text(json.dumps(config))
    write_safetensors(plain / "model.safetensors", {n: t.read() for n, t in checkpoint.tensors.items()}, "F32")
    ours = tmp_path / "again"
    shutil.copytree(DATA / name, ours / "same")
    for source, target in ((plain, "a"), (ours / "same", "b")):
        export(source, tmp_path / target, Options("none", "w8a8", "F16"))
    assert (tmp_path / "a" / "model.gguf").read_bytes() == (tmp_path / "b" / "model.gguf").read_bytes()


@pytest.mark.parametrize("name", TINY)
def test_a_plain_checkpoint_of_it_is_bit_identical(name: str, tmp_path: Path) -> None:
    whole = Checkpoint.open(DATA / name)
    shutil.copy(DATA / name / "config.json", tmp_path)
    sizes: list[int] = []
    write_weights(tmp_path / "model.safetensors", whole, sizes.append)
    again = Checkpoint.open(tmp_path)
    assert all(np.array_equal(whole.tensors[n].read(), again.tensors[n].read()) for n in whole.tensors)
    assert sum(sizes) < (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.board
@pytest.mark.parametrize("name", TINY)
def test_the_npus_logits_are_those_of_the_numbers(name: str, tmp_path: Path, simulator: Callable[..., Path]) -> None:
    from rk_gemma_runtime.model import Model
    from rk_gemma_runtime.options import Options as Wishes

    golden = np.load(DATA / name / "golden.npz")
    bundle = export(DATA / name, tmp_path / "b", Options("sim", "fp16", "none"))
    wishes = Wishes(backend="npu", librkllmrt=str(simulator("1.3.0")), threads=1, force=True)
    with Model(bundle, wishes) as model:
        for i in range(8):
            rows = model.rows(tuple(golden[f"prompt_{i}"].tolist()))
            assert np.abs(rows - golden[f"logits_dequant_{i}"]).max() < 5e-4


SIZED = """
import json, sys
from pathlib import Path
from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export.plain import write_weights
source = Path(sys.argv[1])
write_weights(source / "out.bin", Checkpoint.open(source), lambda done: None)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024, (source / "out.bin").stat().st_size >> 20)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    config = {**GEMMA2, "hidden_size": 2048, "num_attention_heads": 8, "head_dim": 256, "intermediate_size": 16384,
              "num_hidden_layers": 2, "vocab_size": 64000}  # fmt: skip
    facts: list[tuple[str, str, tuple[int, ...], int]] = []
    for name, shape in shapes_of(config).items():
        size = int(np.prod(shape))
        if "_proj" in name:
            facts += [(name, "I8", shape, size), (name.replace(".weight", ".SCB"), "F32", shape[:1], 4 * shape[0])]
        else:
            facts.append((name, "F16", shape, 2 * size))
    header, at = {}, 0
    for name, dtype, shape, size in facts:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with (tmp_path / "model.safetensors").open("wb") as file:  # zeros that take no place on the disk
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + at)
    done = subprocess.run(
        [sys.executable, "-c", SIZED, str(tmp_path)], env=environment(), capture_output=True, text=True
    )
    peak, written = map(int, done.stdout.split())
    assert peak < 300 and written > 1000, done.stderr
    (tmp_path / "out.bin").unlink()
