"""One model written in many ways: as tools and trainers leave it, with the same values."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from checkpointkit import plain, raw, write_raw
from hosttools import DATA, write_checkpoint, write_safetensors, write_shards

from rk_gemma.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hosttools import Arrays

    Config = dict[str, Any]
    Write = Callable[[Path, Config, Arrays], Path]

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX = "model.safetensors.index.json"


def base(family: str) -> tuple[Config, Arrays]:
    """Config and weights of a tiny checkpoint whose greedy ids by transformers are known."""
    config: Config = json.loads((DATA / family / "config.json").read_text())
    tensors = Checkpoint.open(DATA / family).tensors
    return config, {name: tensor.read() for name, tensor in tensors.items()}


def whole(directory: Path, config: Config, weights: Arrays) -> Path:
    return write_checkpoint(directory, config, weights, "F32")


def _with(**keys: Any) -> Write:
    return lambda at, config, weights: whole(at, {**config, **keys}, weights)


def _renamed(rename: Callable[[str], str]) -> Write:
    return lambda at, config, weights: whole(at, config, {rename(name): w for name, w in weights.items()})


def _shards(at: Path, config: Config, weights: Arrays) -> Path:
    """In float32, as the rest."""
    whole(at, config, weights)
    homes = json.loads((at / INDEX).read_text())["weight_map"] if write_shards(at, weights) else {}
    for name in set(homes.values()):
        write_safetensors(at / name, {k: w for k, w in weights.items() if homes[k] == name}, "F32")
    return at


def _shards_alone(at: Path, config: Config, weights: Arrays) -> Path:
    (_shards(at, config, weights) / INDEX).unlink()
    return at


def _stale_index(at: Path, config: Config, weights: Arrays) -> Path:
    gone = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    (whole(at, config, weights) / INDEX).write_text(json.dumps({"weight_map": gone}))
    return at


def _another_set(at: Path, config: Config, weights: Arrays) -> Path:
    """Whole, different, and not what transformers takes."""
    _shards(at, config, {name: w * 0.5 for name, w in weights.items()})
    write_safetensors(at / "model.safetensors", weights, "F32")
    return at


def _other_name(at: Path, config: Config, weights: Arrays) -> Path:
    (whole(at, config, weights) / "model.safetensors").rename(at / "consolidated.safetensors")
    return at


def _hub_cache(at: Path, config: Config, weights: Arrays) -> Path:
    """Links into blobs that are called as their hashes."""
    home = at / "models--someone--tiny-gemma"
    place = whole(home / "snapshots" / ("c" * 40), config, weights)
    (home / "blobs").mkdir()
    for path in list(place.iterdir()):
        blob = home / "blobs" / sha256(path.read_bytes()).hexdigest()
        path.rename(blob)
        path.symlink_to(f"../../blobs/{blob.name}")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c" * 40)
    return home


def _extra(at: Path, config: Config, weights: Arrays) -> Path:
    """Buffers and heads that other versions and trainers save."""
    whole(at, config, weights)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": raw("F32", 8), "model.normalizer": raw("BF16"),
            "model.position_ids": raw("I64", 1, 128), "v_head.summary.weight": raw("F64", 1, 64)}  # fmt: skip
    write_raw(at / "model.safetensors", {**more, **plain(weights, "F32")})
    return at


def _trainer(at: Path, config: Config, weights: Arrays) -> Path:
    whole(at, config, weights)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"):
        (at / name).write_bytes(b"x")
    return at


def _adapter(at: Path, config: Config, weights: Arrays) -> Path:
    """A merged model beside the adapter that went into it."""
    whole(at, config, weights)
    (at / "adapter_config.json").write_text("{}")
    write_safetensors(at / "adapter_model.safetensors", {"a": np.zeros(3, np.float32)})
    return at


def _old_config(at: Path, config: Config, weights: Arrays) -> Path:
    """As the hub has it."""
    drop = {"rope_parameters", "layer_types", "dtype"}
    old = {key: value for key, value in config.items() if key not in drop}
    return whole(at, {**old, "rope_theta": 10000.0, "torch_dtype": "float32"}, weights)


WAYS: dict[str, Write] = {
    "plain": whole,
    "_orig_mod": _renamed(lambda name: f"_orig_mod.{name}"),
    "module": _renamed(lambda name: f"module.{name}"),
    "base_model.model": _renamed(lambda name: f"base_model.model.{name}"),
    "both": _renamed(lambda name: f"module._orig_mod.{name}"),
    "no prefix": _renamed(lambda name: name.removeprefix("model.")),
    "language_model": _renamed(lambda name: f"language_model.{name}"),
    "model.language_model": _renamed(lambda name: f"model.language_{name}"),
    "compiled layers": _renamed(lambda name: name.replace(".mlp.", "._orig_mod.mlp.")),
    "shards": _shards,
    "shards without index": _shards_alone,
    "stale index": _stale_index,
    "another set beside": _another_set,
    "another file name": _other_name,
    "hub cache": _hub_cache,
    "extra tensors": _extra,
    "trainer's state": _trainer,
    "merged adapter beside": _adapter,
    "head repeats the embedding": lambda at, config, w: whole(at, config, {**w, HEAD: w[TABLE]}),
    "and says untied": lambda at, config, w: whole(
        at, {**config, "tie_word_embeddings": False}, {**w, HEAD: w[TABLE]}
    ),
    "config of the hub": _old_config,
    "rope_scaling default": _with(rope_scaling={"rope_type": "default"}, rope_parameters=None, rope_theta=10000.0),
    "rope_scaling type": _with(rope_scaling={"type": "default"}),
    "was quantised once": _with(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
}
