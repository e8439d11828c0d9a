"""model.sim, read back by an independent reader and held against the checkpoint."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import DATA, GEMMA1, GEMMA2, GROUPED, ROOT, random_weights, write_checkpoint
from simreader import SimFile, read_sim

from rk_gemma.checkpoint import Checkpoint, ModelSpec, Tensor, read_spec, reader
from rk_gemma.checkpoint.names import expected_shapes
from rk_gemma.export import simfile
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.errors import CheckpointError, UsageError
from rk_gemma_runtime.memory import dtypes
from rk_gemma_runtime.memory.models import find_shape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HUB = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
       "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}  # fmt: skip
NORMS = {
    "gemma": {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    "gemma2": {"attn_norm": "input_layernorm", "attn_post_norm": "post_attention_layernorm",
               "ffn_norm": "pre_feedforward_layernorm", "ffn_post_norm": "post_feedforward_layernorm"},
}  # fmt: skip
DEMO_TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"
needs_demo_tokenizer = pytest.mark.skipif(
    not DEMO_TOKENIZER.exists(), reason=f"{DEMO_TOKENIZER} is not there; run: python -m demo.tokenizer"
)


def made(source: Path, target: Path, dtype: str) -> SimFile:
    export(source, target, Options("sim", dtype, "none"))
    return read_sim(target / "model.sim")


def linears(config: Mapping[str, Any]) -> dict[str, str]:
    found = {"output": "model.embed_tokens.weight"}
    for i in range(config["num_hidden_layers"]):
        found |= {f"blk.{i}.{own}": f"model.layers.{i}.{hub}.weight" for own, hub in HUB.items()}
    return found


def norms(config: Mapping[str, Any]) -> dict[str, str]:
    found = {"output_norm": "model.norm.weight"}
    for i in range(config["num_hidden_layers"]):
        found |= {f"blk.{i}.{own}": f"model.layers.{i}.{hub}.weight"
                  for own, hub in NORMS[config["model_type"]].items()}  # fmt: skip
    return found


def check(
    sim: SimFile, weights: Mapping[str, Any], config: Mapping[str, Any], dtype: str, exact: bool = False
) -> None:
    """Every tensor of the document is there, no other, and each holds the values. `exact`: a float32 checkpoint."""
    scales = {f"{name}.scale" for name in linears(config)} if dtype != "fp16" else set()
    assert set(sim.tensors) == {"embed", *linears(config), *norms(config), *scales}
    assert sim.dtypes["embed"] == ("f32" if exact and dtype == "fp16" else "f16")
    check_float(sim, "embed", weights["model.embed_tokens.weight"])
    for own, hub in norms(config).items():
        assert sim.dtypes[own] == "f32"
        np.testing.assert_array_equal(sim.tensors[own], weights[hub][None] + np.float32(1))
    for own, hub in linears(config).items():
        if dtype == "fp16":
            assert sim.dtypes[own] == ("f32" if exact else "f16")
            check_float(sim, own, weights[hub])
        else:
            check_int8(sim, own, weights[hub], int(dtype.partition("_g")[2] or 0))


def check_float(sim: SimFile, own: str, truth: Any) -> None:
    np.testing.assert_array_equal(sim.tensors[own], truth.astype(sim.tensors[own].dtype))


def check_int8(sim: SimFile, own: str, truth: Any, group: int) -> None:
    scale = sim.tensors[f"{own}.scale"]
    width = group or truth.shape[1]
    assert (sim.dtypes[own], sim.dtypes[f"{own}.scale"]) == ("i8", "f32")
    assert scale.shape == (truth.shape[0], truth.shape[1] // width)
    assert (np.abs(sim.linear(own) - truth) <= scale.repeat(width, axis=1) * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("source", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("dtype", ["fp16", "w8a8"])
@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
def test_holds_the_checkpoint(config: dict[str, Any], dtype: str, source: str, tmp_path: Path) -> None:
    weights = random_weights(config)
    if source == "F16":
        weights = {name: values.astype(np.float16).astype(np.float32) for name, values in weights.items()}
    sim = made(write_checkpoint(tmp_path / "src", config, weights, source), tmp_path / "out", dtype)
    check(sim, weights, config, dtype, exact=source == "F32")
    assert sim.keys["dtype"] == dtype


@pytest.mark.parametrize("dtype", ["w8a8_g128", "w8a8_g256", "w8a8_g512"])
def test_groups(dtype: str, tmp_path: Path) -> None:
    weights = random_weights(GROUPED)
    check(
        made(write_checkpoint(tmp_path / "src", GROUPED, weights), tmp_path / "out", dtype), weights, GROUPED, dtype
    )


@pytest.mark.parametrize("name", ["tiny-gemma1", "tiny-gemma2"])
def test_blocks_of_rows_do_not_show(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(DATA / name, tmp_path / "a", "w8a8")
    monkeypatch.setattr(reader, "BLOCK_BYTES", 7 * 64 * 4)
    pieces = made(DATA / name, tmp_path / "b", "w8a8")
    assert all(np.array_equal(whole.tensors[t], pieces.tensors[t]) for t in whole.tensors)


def test_header_of_gemma2(tmp_path: Path) -> None:
    keys = made(DATA / "tiny-gemma2", tmp_path / "out", "fp16").keys
    said = {k: keys[k] for k in ("family", "vocab", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn")}
    assert said == {"family": "gemma2", "vocab": "512", "hidden": "64", "layers": "4", "heads": "4", "kv_heads": "2",
                    "head_dim": "16", "ffn": "160"}  # fmt: skip
    assert (keys["context"], keys["window"], keys["sliding"]) == ("128", "16", "1010")
    assert (keys["bos"], keys["eos"], keys["platform"], keys["npu_cores"]) == ("2", "1", "RK3588", "3")
    floats = {k: float(keys[k]) for k in ("rms_eps", "rope_theta", "attn_scale", "embed_scale")}
    assert floats == {"rms_eps": 1e-6, "rope_theta": 10000.0, "attn_scale": 0.25, "embed_scale": 8.0}
    assert (float(keys["attn_softcap"]), float(keys["final_softcap"])) == (50.0, 30.0)


def test_header_of_gemma1(tmp_path: Path) -> None:
    keys = made(DATA / "tiny-gemma1", tmp_path / "out", "fp16").keys
    assert (keys["family"], keys["window"], keys["sliding"]) == ("gemma", "0", "0000")
    assert (float(keys["attn_softcap"]), float(keys["final_softcap"])) == (0.0, 0.0)
    assert float(keys["attn_scale"]) == 32**-0.5


@needs_demo_tokenizer
def test_pieces(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    sp = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, "vocab_size": len(sp) + 5})
    (source / "tokenizer.model").write_bytes(DEMO_TOKENIZER.read_bytes())
    sim = made(source, tmp_path / "out", "fp16")
    pieces = sim.pieces()
    assert len(pieces) == len(sp) + 5
    assert [pieces[i] for i in (0, 1, 2, 106, 107)] == [b""] * 5
    assert pieces[-5:] == [b""] * 5
    assert [pieces[sp.piece_to_id(f"<0x{b:02X}>")] for b in range(256)] == [bytes([b]) for b in range(256)]
    text = "What does errno 14 mean?\n\tÜber 日本 \U0001f600"
    assert b"".join(pieces[i] for i in sp.encode(text)).decode() == text
    assert sim.keys["eos"] == "1,107"
    vocab = sim.table("vocab")
    assert [piece.decode() for piece in vocab] == [*map(sp.id_to_piece, range(len(sp))), *[""] * 5]
    assert sim.tensors["scores"][0].tolist() == [*map(sp.get_score, range(len(sp))), *[0.0] * 5]
    types = sim.tensors["types"][0]
    assert [int(types[i]) for i in (0, 1, 2, 3, 4, 106, 107)] == [3, 3, 3, 2, 4, 4, 4]
    assert types[sp.piece_to_id("<0x00>")] == 6 and types[-6:].tolist() == [1, *[5] * 5]


@needs_demo_tokenizer
@pytest.mark.parametrize("change", [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}])
def test_a_tokenizer_of_another_kind(change: dict[str, bool], tmp_path: Path) -> None:
    """The simulator would split text otherwise than it: the file then says what ids print, and no more."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(DEMO_TOKENIZER.read_bytes())
    for name, value in change.items():
        setattr(model.normalizer_spec, name, value)
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, "vocab_size": len(model.pieces)})
    (source / "tokenizer.model").write_bytes(model.SerializeToString())
    assert {"pieces", "vocab", "scores", "types"} & made(source, tmp_path / "out", "fp16").tensors.keys() == {
        "pieces"
    }


@pytest.mark.parametrize("dtype", ["w8a8_g128", "w8a8_g256", "w8a8_g512"])
def test_group_that_does_not_divide(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"{dtype} .* 64 inputs of q .* groups of {dtype[6:]}; choose w8a8$"):
        export(DATA / "tiny-gemma2", tmp_path / "out", Options("sim", dtype, "none"))
    assert not list(tmp_path.iterdir())


def test_the_refusal_names_what_fits() -> None:
    shape = find_shape("gemma-2-2b")
    dtypes.check(shape, dtypes.dtype_of("w8a8_g256"))
    with pytest.raises(UsageError, match=r"2304 inputs .* groups of 512; choose w8a8 or w8a8_g128 or w8a8_g256$"):
        dtypes.check(shape, dtypes.dtype_of("w8a8_g512"))


@pytest.mark.parametrize("dtype", ["fp16", "w8a8"])
def test_value_that_float16_cannot_hold(dtype: str, tmp_path: Path) -> None:
    """100000 is read as plausible and would be written as infinity."""
    weights = random_weights(GEMMA2)
    weights["model.embed_tokens.weight"][3, 3] = 1e5
    source = write_checkpoint(tmp_path / "src", GEMMA2, weights)
    with pytest.raises(CheckpointError, match=r"embed_tokens"):
        export(source, tmp_path / "out", Options("sim", dtype, "none"))


def shapes_only(spec: ModelSpec, directory: Path) -> Checkpoint:
    tensors = {n: Tensor(n, directory, "BF16", s, 0) for n, s in expected_shapes(spec).items()}
    return Checkpoint(directory, spec, tensors)


@pytest.mark.parametrize("dtype", ["w8a8", "fp16"])
def test_a_27b_file_is_laid_out_without_overlap(dtype: str, tmp_path: Path) -> None:
    """Its offsets have more digits than those of a small file."""
    spec = replace(read_spec(DATA / "tiny-gemma2"), shape=find_shape("gemma-2-27b"), sliding=(True, False) * 23)
    plan = simfile._plan(shapes_only(spec, tmp_path), dtype, {"pieces": bytes(10)})
    text, placed = simfile.place("family gemma2\n", plan)
    assert placed[-1].offset > 27e9
    assert 16 + len(text) <= placed[0].offset
    assert all(a.offset + a.size <= b.offset for a, b in itertools.pairwise(placed))
