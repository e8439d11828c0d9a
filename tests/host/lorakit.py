"""PEFT directories of any kind for the host's tests, and what PEFT would make of them, written from its documents."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from hosttools import shapes_of, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from hosttools import Arrays
    from numpy.typing import NDArray

MODULES = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip
# What PEFT 0.21 writes for LoraConfig(r=4, lora_alpha=6, target_modules=[...], task_type="CAUSAL_LM").
CONFIG: dict[str, Any] = {
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None, "auto_mapping": None,
    "base_model_name_or_path": "base", "bias": "none", "corda_config": None, "ensure_weight_tying": False,
    "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
    "init_lora_weights": True, "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "lora_alpha": 6, "lora_bias": False, "lora_dropout": 0.0, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "qalora_group_size": 16, "r": 4,
    "rank_pattern": {}, "revision": None, "target_modules": list(MODULES), "target_parameters": None,
    "task_type": "CAUSAL_LM", "trainable_token_indices": None, "use_dora": False, "use_qalora": False,
    "use_rslora": False,
}  # fmt: skip


def module_names(layers: Iterable[int], modules: Iterable[str] = MODULES) -> list[str]:
    """model.layers.0.self_attn.q_proj and so on."""
    return [f"model.layers.{i}.{MODULES[m]}.{m}" for i in layers for m in modules]


def halves(
    model: Mapping[str, Any],
    names: Iterable[str],
    ranks: Mapping[str, int] | int = 4,
    seed: int = 5,
    size: float = 0.3,
) -> Arrays:
    """Random lora_A and lora_B under PEFT's names. `model` is the base's config.json."""
    rng, shapes = np.random.default_rng(seed), shapes_of(model)
    found: Arrays = {}
    for name in names:
        out, into = shapes[f"{name}.weight"]
        rank = ranks if isinstance(ranks, int) else ranks[name]
        found[f"base_model.model.{name}.lora_A.weight"] = drawn(rng, (rank, into), size)
        found[f"base_model.model.{name}.lora_B.weight"] = drawn(rng, (out, rank), size)
    return found


def drawn(rng: np.random.Generator, shape: tuple[int, int], size: float) -> NDArray[np.float32]:
    """Values that bfloat16 and float16 both hold: eighths of `size` to two digits."""
    return (np.rint(rng.normal(0, 8, shape)) / 8 * size).astype(np.float16).astype(np.float32)


def write_peft(directory: Path, weights: Arrays, dtype: str = "F32", **changes: Any) -> Path:
    """A PEFT directory; `changes` to CONFIG."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    write_safetensors(directory / "adapter_model.safetensors", weights, dtype)
    return directory


def update(weights: Arrays, name: str, alpha: float = 6, stable: bool = False) -> NDArray[np.float64]:
    """What one module's weight grows by."""
    a, b = (weights[f"base_model.model.{name}.lora_{half}.weight"].astype(np.float64) for half in "AB")
    return alpha / (math.sqrt(len(a)) if stable else len(a)) * (b @ a)


def merged(base: Arrays, weights: Arrays, **options: Any) -> Arrays:
    """The base with every update added: what PEFT's merge_and_unload leaves."""
    names = {key.split(".lora_")[0].removeprefix("base_model.model.") for key in weights}
    grown = {f"{n}.weight": (base[f"{n}.weight"] + update(weights, n, **options)).astype(np.float32) for n in names}
    return {**base, **grown}
