"""model.gguf, read back with the gguf package."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from hosttools import DATA, GEMMA1, GEMMA2, ROOT, random_weights, write_checkpoint

from rk_gemma.checkpoint import read_spec
from rk_gemma.export import gguffile
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "F16": gguf.GGMLQuantizationType.F16}
LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
}  # fmt: skip
NORMS = {
    "gemma": {"ffn_norm": "post_attention_layernorm"},
    "gemma2": {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
               "post_ffw_norm": "post_feedforward_layernorm"},
}  # fmt: skip
DEMO_TOKENIZER = ROOT / "demo" / "checkpoint" / "tokenizer.model"
needs_demo_tokenizer = pytest.mark.skipif(
    not DEMO_TOKENIZER.exists(), reason=f"{DEMO_TOKENIZER} is not there; run: python -m demo.tokenizer"
)


def made(source: Path, target: Path, quant: str) -> gguf.GGUFReader:
    export(source, target, Options("none", "w8a8", quant))
    return gguf.GGUFReader(target / "model.gguf")


def value(reader: gguf.GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def hub_names(config: dict[str, Any]) -> dict[str, str]:
    """llama.cpp's names (gguf-py/gguf/constants.py) for the Hugging Face names."""
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for i in range(config["num_hidden_layers"]):
        for theirs, hub in {**LAYER, **NORMS[config["model_type"]]}.items():
            names[f"blk.{i}.{theirs}.weight"] = f"model.layers.{i}.{hub}.weight"
    return names


@pytest.mark.parametrize("quant", ["F16", "Q8_0"])
@pytest.mark.parametrize("config", [GEMMA1, GEMMA2], ids=["gemma", "gemma2"])
def test_tensors(config: dict[str, Any], quant: str, tmp_path: Path) -> None:
    weights = random_weights(config)
    reader = made(write_checkpoint(tmp_path / "src", config, weights), tmp_path / "out", quant)
    names = hub_names(config)
    assert {t.name for t in reader.tensors} == set(names)
    factor = (config["head_dim"] / config.get("query_pre_attn_scalar", config["head_dim"])) ** 0.5
    for tensor in reader.tensors:
        truth = weights[names[tensor.name]]
        assert list(tensor.shape) == list(reversed(truth.shape))  # GGUF counts dimensions from the inside
        got = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(truth.shape)
        if truth.ndim == 1:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            np.testing.assert_array_equal(got, truth + np.float32(1))
            continue
        assert tensor.tensor_type == KINDS[quant]
        wanted = truth * np.float32(factor if tensor.name.endswith("attn_q.weight") else 1)
        near(got, wanted, quant)


def near(got: Any, wanted: Any, quant: str) -> None:
    if quant == "F16":
        np.testing.assert_array_equal(got, wanted.astype(np.float16).astype(np.float32))
        return
    blocks = wanted.reshape(len(wanted), -1, 32)
    step = np.abs(blocks).max(axis=2, keepdims=True) / 127  # the scale itself is a float16: 2^-11 of 127 steps
    assert (np.abs(got.reshape(blocks.shape) - blocks) <= step * (0.5 + 127 * 2**-11 + 1e-3)).all()


def test_facts_of_gemma2(tmp_path: Path) -> None:
    reader = made(DATA / "tiny-gemma2", tmp_path / "tiny", "F16")
    facts = {
        "context_length": 128, "embedding_length": 64, "block_count": 4, "feed_forward_length": 160,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "attention.value_length": 16, "attention.sliding_window": 16, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "rope.freq_base": 10000.0,
    }  # fmt: skip
    assert value(reader, "general.architecture") == "gemma2"
    assert {key: value(reader, f"gemma2.{key}") for key in facts} == facts
    assert value(reader, "gemma2.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert value(reader, "general.file_type") == gguf.LlamaFileType.MOSTLY_F16
    assert value(reader, "general.name") == "tiny-gemma2"


def test_facts_of_gemma1(tmp_path: Path) -> None:
    reader = made(DATA / "tiny-gemma1", tmp_path / "out", "Q8_0")
    assert value(reader, "general.architecture") == "gemma"
    assert value(reader, "gemma.attention.head_count_kv") == 1
    assert value(reader, "gemma.attention.key_length") == 32
    assert value(reader, "general.file_type") == gguf.LlamaFileType.MOSTLY_Q8_0
    assert not [key for key in reader.fields if "softcap" in key or "sliding" in key]


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"family": "gemma"}, 1.0),
        ({"head_dim": 256, "query_scalar": 256.0}, 1.0),  # 2B, 9B
        ({"head_dim": 256, "query_scalar": 224.0}, (256 / 224) ** 0.5),  # 9B as first released
        ({"layers": 46, "hidden": 4608, "heads": 32, "head_dim": 128, "query_scalar": 144.0}, 1.0),  # 27B
        ({"layers": 46, "hidden": 4608, "heads": 32, "head_dim": 128, "query_scalar": 128.0}, (144 / 128) ** 0.5),
        ({"layers": 45, "hidden": 4608, "heads": 32, "head_dim": 128, "query_scalar": 144.0}, (128 / 144) ** 0.5),
    ],
)
def test_attention_scale_folded_into_q(change: dict[str, Any], factor: float) -> None:
    spec = read_spec(DATA / "tiny-gemma2")
    shape = {key: value for key, value in change.items() if key != "query_scalar"}
    scalar = change.get("query_scalar", spec.query_scalar)
    changed = replace(spec, shape=replace(spec.shape, **shape), query_scalar=scalar)
    assert gguffile.q_factor(changed) == pytest.approx(factor)


def test_ids_only_vocabulary(tmp_path: Path) -> None:
    reader = made(DATA / "tiny-gemma2", tmp_path / "out", "F16")
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == len(set(tokens)) == 512
    assert (value(reader, "tokenizer.ggml.bos_token_id"), value(reader, "tokenizer.ggml.eos_token_id")) == (2, 1)
    assert not any(value(reader, f"tokenizer.ggml.{key}") for key in ("add_bos_token", "add_eos_token"))


@needs_demo_tokenizer
def test_token_types(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    sp = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, "vocab_size": len(sp) + 3})
    (source / "tokenizer.model").write_bytes(DEMO_TOKENIZER.read_bytes())
    reader = made(source, tmp_path / "out", "Q8_0")
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    kind = gguf.TokenType
    assert tokens[: len(sp)] == [sp.id_to_piece(i) for i in range(len(sp))]
    assert [kinds[i] for i in (0, 1, 2, 3, 106, 107)] == [
        kind.CONTROL, kind.CONTROL, kind.CONTROL, kind.UNKNOWN, kind.CONTROL, kind.CONTROL,
    ]  # fmt: skip
    assert {kinds[i] for i in range(len(sp)) if sp.is_byte(i)} == {kind.BYTE}
    assert kinds[4] == kinds[sp.piece_to_id("\n\n")] == kind.USER_DEFINED
    assert kinds[-3:] == [kind.UNUSED] * 3
    assert kinds[sp.encode("memory")[-1]] == kind.NORMAL
    assert value(reader, "tokenizer.ggml.eot_token_id") == 107
    assert value(reader, "tokenizer.ggml.scores")[300] == pytest.approx(sp.get_score(300))


def test_layers_that_llama_cpp_cannot_slide(tmp_path: Path) -> None:
    config = {**GEMMA2, "layer_types": ["full_attention", "sliding_attention"]}
    source = write_checkpoint(tmp_path / "src", config)
    with pytest.raises(CheckpointError, match="export with --cpu none"):
        export(source, tmp_path / "out", Options("sim", "w8a8", "Q8_0"))
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_rows_that_do_not_divide_into_blocks(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "src", {**GEMMA2, "intermediate_size": 100})
    with pytest.raises(CheckpointError, match="blocks of 32"):
        export(source, tmp_path / "out", Options("none", "w8a8", "Q8_0"))
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    export(source, tmp_path / "out", Options("none", "w8a8", "F16"))


def test_value_that_float16_cannot_hold(tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    weights["model.layers.0.mlp.up_proj.weight"][3, 3] = 1e5
    source = write_checkpoint(tmp_path / "src", GEMMA2, weights)
    with pytest.raises(CheckpointError, match="up_proj"):
        export(source, tmp_path / "out", Options("none", "w8a8", "F16"))
