"""Checkpoints of every peculiarity, exported: both engines give transformers' greedy ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import DATA, GEMMA1, GEMMA2, bf16_exact, random_weights, write_checkpoint, write_safetensors
from peculiar import HEAD, INDEX, TABLE, WAYS, base

from rk_gemma.export.pipeline import Options as Export
from rk_gemma.export.pipeline import export
from rk_gemma_runtime import Assistant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Config = dict[str, Any]

pytestmark = pytest.mark.board
NEW = 24
PROMPT = [2, 5, 9, 77, 100, 41, 60, 7, 7, 90, 33, 12]  # longer than the windows


def answered(bundle: Path, backend: Any, library: Path, prompt: list[int]) -> list[int]:
    with Assistant.open(bundle, backend=backend, librkllmrt=str(library), threads=1) as gemma:
        list(gemma.generate(prompt, max_tokens=NEW, temperature=0))
        assert gemma.last is not None
        assert (gemma.last.backend, gemma.last.degraded) == (backend, None)
        return list(gemma.last.ids)


def exported(source: Path, target: Path, cpu: str = "F16") -> Path:
    export(source, target, Export("sim", "fp16", cpu))
    return target


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["tiny-gemma2", "tiny-gemma1"])
def test_the_same_values_in_another_form(
    family: str, way: str, tmp_path: Path, simulator: Callable[[str], Path]
) -> None:
    source = WAYS[way](tmp_path / "src", *base(family))
    bundle = exported(source, tmp_path / "out")
    numbers = np.load(DATA / family / "golden.npz")
    prompt, truth = numbers["prompt_6"].tolist(), numbers["greedy_6"].tolist()
    assert len(truth) == NEW
    for backend in ("npu", "cpu"):
        assert answered(bundle, backend, simulator("1.3.0"), prompt) == truth, backend


# What transformers itself has to compute: other values or another shape.
END = 127  # an id that none of these answers has
OF_2: Config = {**GEMMA2, "eos_token_id": END, "architectures": ["Gemma2ForCausalLM"], "query_pre_attn_scalar": 16}
OF_1: Config = {**GEMMA1, "eos_token_id": END, "architectures": ["GemmaForCausalLM"]}
SHAPES: dict[str, Config] = {
    "gemma": OF_1,
    "gemma, head_dim 24": {**OF_1, "head_dim": 24},
    "gemma, every head its own": {**OF_1, "num_key_value_heads": 4},
    "gemma2": OF_2,
    "one kv head": {**OF_2, "num_key_value_heads": 1},
    "every head its own": {**OF_2, "num_key_value_heads": 4},
    "head_dim 24": {**OF_2, "head_dim": 24, "query_pre_attn_scalar": 24},
    "another scalar": {**OF_2, "query_pre_attn_scalar": 40},
    "no caps": {**OF_2, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    "no window": {**OF_2, "layer_types": ["full_attention"] * 2},
    "window never ends": {**OF_2, "sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]},
    "theta": {**OF_2, "rope_theta": 500.0},
    "padded rows": {**OF_2, "vocab_size": 192},
}


# Of the random weights, where those of seed 1 end in a near tie, which float16 may decide either way.
SEEDS = {"gemma, head_dim 24": 13, "head_dim 24": 4, "one kv head": 2, "every head its own": 13, "another scalar": 4,
         "no window": 4, "window never ends": 4, "theta": 6, "padded rows": 2}  # fmt: skip
CLEAR = 0.01  # of logits: what both engines may differ by, four times over


def weights_for(config: Config, seed: int = 1) -> dict[str, Any]:
    """Random ones that are large enough for answers with a beginning and a middle."""
    found = random_weights(config, seed)
    return {name: bf16_exact(values * np.float32(6)) if "layer" in name else values for name, values in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_another_shape(name: str, tmp_path: Path, simulator: Callable[[str], Path]) -> None:
    config = SHAPES[name]
    source = write_checkpoint(tmp_path / "src", config, weights_for(config, SEEDS.get(name, 1)))
    truth = transformers_ids(source)
    bundle = exported(source, tmp_path / "out")
    for backend in ("npu", "cpu"):
        assert answered(bundle, backend, simulator("1.3.0"), PROMPT) == truth, backend


def mixed(at: Path, pick: Callable[[str], str]) -> Path:
    """Shards whose tensors have the types that `pick` says."""
    weights = weights_for(OF_2)
    write_checkpoint(at, OF_2, {})
    (at / "model.safetensors").unlink()
    kinds = sorted({pick(name) for name in weights})
    files = {kind: f"model-{i + 1:05d}-of-{len(kinds):05d}.safetensors" for i, kind in enumerate(kinds)}
    for kind, file in files.items():
        write_safetensors(at / file, {name: w for name, w in weights.items() if pick(name) == kind}, kind)
    (at / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {name: files[pick(name)] for name in weights}}))
    return at


TYPES: dict[str, Callable[[str], str]] = {
    "bf16": lambda name: "BF16",
    "fp16": lambda name: "F16",
    "fp32": lambda name: "F32",
    "bf16 with fp32 norms": lambda name: "F32" if "norm" in name else "BF16",
    "fp16 with bf16 embedding": lambda name: "BF16" if name == TABLE else "F16",
    "all three": lambda name: "F32" if "norm" in name else "F16" if "mlp" in name else "BF16",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_types_of_numbers(name: str, tmp_path: Path, simulator: Callable[[str], Path]) -> None:
    source = mixed(tmp_path / "src", TYPES[name])
    truth = transformers_ids(source)
    bundle = exported(source, tmp_path / "out")
    for backend in ("npu", "cpu"):
        assert answered(bundle, backend, simulator("1.3.0"), PROMPT) == truth, backend


@pytest.mark.slow
@pytest.mark.parametrize("stated", [None, True, False])
@pytest.mark.parametrize("config", [OF_1, OF_2], ids=["gemma", "gemma2"])
def test_an_output_layer_of_its_own(
    config: Config, stated: bool | None, tmp_path: Path, simulator: Callable[[str], Path]
) -> None:
    """On the NPU; llama.cpp has no place for it (test_untied_head.py)."""
    seed = {"gemma": 1, "gemma2": 2}[config["model_type"]]
    config = config if stated is None else {**config, "tie_word_embeddings": stated}
    head = np.random.default_rng(9).normal(0, 0.2, (config["vocab_size"], 64)).astype(np.float32)
    source = write_checkpoint(tmp_path / "src", config, {**weights_for(config, seed), HEAD: bf16_exact(head)})
    bundle = exported(source, tmp_path / "out", "none")
    assert answered(bundle, "npu", simulator("1.3.0"), PROMPT) == transformers_ids(source)


def transformers_ids(source: Path) -> list[int]:
    torch = pytest.importorskip("torch", reason="needs torch: pip install rk-gemma[eval]")
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install rk-gemma[eval]")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    ids = list(PROMPT)
    with torch.no_grad():
        for _ in range(NEW):
            best = model(torch.tensor([ids])).logits[0, -1].topk(2)
            assert float(best.values[0] - best.values[1]) > CLEAR, "a near tie: take another seed"
            ids.append(int(best.indices[0]))
    assert END not in ids, "it ends early: take another seed"
    return ids[len(PROMPT) :]
