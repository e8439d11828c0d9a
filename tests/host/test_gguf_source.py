"""A GGUF file in 16 or 32 bits as the source of an export."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from hosttools import DATA
from toolkitkit import DEMO

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.checkpoint.ggufheader import read_gguf
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCES = {"gemma": DATA / "tiny-gemma1", "gemma2": DATA / "tiny-gemma2", "demo": DEMO}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """files(source, quant): its GGUF, made once."""
    folder = tmp_path_factory.mktemp("ggufs")

    def make(source: str, quant: str = "F16") -> Path:
        path = folder / f"{source}-{quant}"
        if not path.exists():
            export(SOURCES[source], path, Options("none", "w8a8", quant))
        return path / "model.gguf"

    return make


@pytest.mark.parametrize("source", SOURCES)
def test_it_is_the_checkpoint_that_it_was_made_from(source: str, files: Callable[..., Path]) -> None:
    whole, again = Checkpoint.open(SOURCES[source]), Checkpoint.open(files(source))
    ours, theirs = whole.spec, again.spec
    assert (theirs.shape, theirs.rms_eps, theirs.window, theirs.sliding) == (
        ours.shape, ours.rms_eps, ours.window, ours.sliding
    )  # fmt: skip
    folded = (theirs.query_scalar / ours.query_scalar) ** 0.5  # llama.cpp has its own scale of attention
    for name, tensor in whole.tensors.items():
        factor = folded if "q_proj" in name else 1.0
        wanted = tensor.read() * np.float32(factor)
        assert np.abs(again.tensors[name].read() - wanted).max() <= np.abs(wanted).max() / 1024, name


def test_text_is_read_the_same(files: Callable[..., Path], tmp_path: Path) -> None:
    bundle = export(files("demo"), tmp_path / "b", Options("none", "w8a8", "F16"))
    assert bundle.manifest.template == "gemma" and bundle.manifest.eos == (1, 107)
    ours, theirs = Tokenizer.open(DEMO / "tokenizer.model"), Tokenizer.open(tmp_path / "b" / "tokenizer.model")
    for text in (
        "Hello there, how are you?",
        "  two  spaces\n\n",
        "Größe 日本 \U0001f600",
        "<start_of_turn>user",
        "</s>",
    ):
        assert ours.encode(text) == theirs.encode(text)
    assert (theirs.bos, theirs.eos, theirs.start_of_turn, theirs.end_of_turn) == (
        ours.bos, ours.eos, ours.start_of_turn, ours.end_of_turn
    )  # fmt: skip


def test_it_goes_through_the_toolkit(
    files: Callable[..., Path], tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    source = tmp_path / "gemma-2-tiny-it-F16.gguf"
    shutil.copy(files("demo"), source)
    done = main("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit())
    assert done.code == 0, done.stderr
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.manifest.npu is not None and bundle.manifest.model.variant == "it"


def rewritten(source: Path, target: Path, kind: str) -> Path:
    """Write the same file in another type."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "gemma2")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = tensor.data.astype(np.float32)
        raw = (values.view(np.uint32) >> 16).astype(np.uint16) if kind == "BF16" and values.ndim == 2 else values
        raw_type = gguf.GGMLQuantizationType.BF16 if raw is not values else None
        writer.add_tensor(tensor.name, raw if raw_type is None else raw.view(np.uint8), raw_dtype=raw_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize("kind", ["BF16", "F32"])
def test_other_plain_types(kind: str, files: Callable[..., Path], tmp_path: Path) -> None:
    path = rewritten(files("demo"), tmp_path / "x.gguf", kind)
    assert {t.dtype for t in Checkpoint.open(path).tensors.values()} == {"F32", kind}
    ours, theirs = Checkpoint.open(files("demo")), Checkpoint.open(path)
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        a, b = ours.tensors[name].read(), theirs.tensors[name].read()
        assert np.abs(a - b).max() <= np.abs(a).max() / 128


def test_a_quantised_file_is_refused(files: Callable[..., Path], tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("export", files("demo", "Q8_0"), "-o", tmp_path / "b")
    assert done.code == 3 and "a quantised GGUF (Q8_0)" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def changed_key(data: bytes, old: str, new: str) -> bytes:
    assert len(old) == len(new) and data.count(old.encode()) >= 1
    return data.replace(old.encode(), new.encode())


@pytest.mark.parametrize(("old", "new", "said"), [
    ("gemma2.block_count", "gemma2.block_coun_", "do not describe a Gemma"),
    ("blk.1.attn_q.", "blk.1.attn_x.", "missing"),
    ("llama", "llamb", "not Gemma's"),
])  # fmt: skip
def test_another_model_is_named(old: str, new: str, said: str, files: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(changed_key(files("demo").read_bytes(), old, new))
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(tmp_path / "x.gguf")


def test_cut_anywhere_it_is_one_line(files: Callable[..., Path], tmp_path: Path) -> None:
    data = files("gemma2").read_bytes()
    for share in (0, 1, 4, 7, 8, 23, 24, 50, 100, 1000, 5000, len(data) // 3, len(data) // 2, len(data) - 40):
        (tmp_path / "x.gguf").write_bytes(data[:share])
        with pytest.raises(CheckpointError, match=r"is not whole|truncated") as caught:
            Checkpoint.open(tmp_path / "x.gguf")
        assert "\n" not in str(caught.value)


def test_lying_numbers_are_refused_quickly(files: Callable[..., Path], tmp_path: Path) -> None:
    head = bytearray(files("gemma2").read_bytes()[:6000])
    random = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(head)
        for place in random.integers(0, len(head), 3):
            damaged[place] = random.integers(0, 256)
        (tmp_path / "x.gguf").write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_gguf(tmp_path / "x.gguf")
            raise CheckpointError("whole")
