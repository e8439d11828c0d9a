"""The committed checkpoint: small, and with every feature of Gemma 2."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest

from demo.tokenizer import CHECKPOINT


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHECKPOINT / "config.json").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    """The header of the safetensors file."""
    with (CHECKPOINT / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header


def test_every_feature_of_gemma_2_is_on(config: dict[str, Any]) -> None:
    assert config["architectures"] == ["Gemma2ForCausalLM"]
    assert config["attn_logit_softcapping"] == 50.0 and config["final_logit_softcapping"] == 30.0
    assert config["hidden_activation"] == "gelu_pytorch_tanh"
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["query_pre_attn_scalar"] != config["head_dim"]
    assert config["tie_word_embeddings"]
    assert config["layer_types"][:4] == ["sliding_attention", "full_attention"] * 2
    assert config["sliding_window"] <= 64 and config["max_position_embeddings"] == 1024


def test_every_linear_layer_takes_groups_of_128(config: dict[str, Any]) -> None:
    attention = config["head_dim"] * config["num_attention_heads"]
    assert [n % 128 for n in (config["hidden_size"], config["intermediate_size"], attention)] == [0, 0, 0]
    assert config["head_dim"] % 32 == 0


def test_the_answer_ends_at_the_end_of_the_turn(config: dict[str, Any]) -> None:
    generation = json.loads((CHECKPOINT / "generation_config.json").read_text("utf-8"))
    assert generation["eos_token_id"] == [1, 107] and config["eos_token_id"] == 1


def test_it_is_small_and_bf16(tensors: dict[str, Any]) -> None:
    assert sum(math.prod(entry["shape"]) for entry in tensors.values()) <= 8_000_000
    assert {entry["dtype"] for entry in tensors.values()} == {"BF16"}
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 16_000_000


def test_it_has_pre_and_post_norms_and_no_head_of_its_own(tensors: dict[str, Any]) -> None:
    norms = {"input", "post_attention", "pre_feedforward", "post_feedforward"}
    assert {f"{name}_layernorm" for name in norms} <= {name.split(".")[-2] for name in tensors}
    assert "lm_head.weight" not in tensors
