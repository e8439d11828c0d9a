"""What a checkpoint's config.json says, in one form for both spellings in circulation.

transformers 5 writes `dtype`, `rope_parameters`, `layer_types`; the files on the hub hold `torch_dtype`,
`rope_theta` and no `layer_types`, and Gemma 1 spells its tanh GELU "gelu".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.rope import rope_theta
from rk_gemma_runtime.errors import CheckpointError
from rk_gemma_runtime.memory.shape import FAMILIES, read_shape

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma_runtime.memory.shape import Shape

TANH_GELU = {"gelu_pytorch_tanh", "gelu", "gelu_tanh", None}


@dataclass(frozen=True)
class ModelSpec:
    """A Gemma 1 or Gemma 2 model: its shape and the numbers that it computes with. Soft caps and window are 0 where
    absent."""

    shape: Shape
    rms_eps: float
    rope_theta: float
    query_scalar: float
    attn_softcap: float
    final_softcap: float
    window: int
    sliding: tuple[bool, ...]
    bos: int
    eos: tuple[int, ...]

    @property
    def post_norms(self) -> bool:
        """Gemma 2 normalises the outputs of attention and MLP too."""
        return self.shape.family == "gemma2"


def read_spec(directory: Path) -> ModelSpec:
    """Read config.json (and generation_config.json for the end ids). Raises CheckpointError."""
    path = directory / "config.json"
    config = read_json(path)
    family = _family(path, config)
    try:
        # One name for every spelling of a config.
        spec = _spec(read_shape(config, family), config, _end_ids(directory, config))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a usable Gemma config: {_missing(error)}") from error
    _check(path, config, spec)
    return spec


def _family(path: Path, config: dict[str, Any]) -> str:
    kind = config.get("model_type")
    if kind in FAMILIES and not config.get("text_config"):
        return str(kind)
    raise CheckpointError(
        f"{path}: model_type {kind!r} is not Gemma 1 or 2 (supported: {', '.join(FAMILIES)});"
        " export a google/gemma-* or gemma-2-* checkpoint"
    )


def _missing(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _broken(text: str, error: json.JSONDecodeError) -> str:
    """Say where a file that begins as a JSON object goes wrong."""
    return f"not JSON: {error}" if text.lstrip().startswith("{") else ""


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a checkpoint's JSON files. Raises CheckpointError if it is not a JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent}: no {path.name} here; give the directory of a Hugging Face Gemma checkpoint"
        ) from None
    except NotADirectoryError:
        raise CheckpointError(f"{path.parent}: a file, not a checkpoint directory") from None
    except json.JSONDecodeError as error:
        seen = f"not JSON (it begins with {text.strip()[:20]!r})" if text.strip() else "empty"
        raise CheckpointError(f"{path}: {_broken(text, error) or seen}; download it again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return config


def _spec(shape: Shape, config: dict[str, Any], eos: tuple[int, ...]) -> ModelSpec:
    second = shape.family == "gemma2"
    return ModelSpec(
        shape=shape,
        rms_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=rope_theta(config),
        query_scalar=float(config.get("query_pre_attn_scalar", 256)) if second else float(shape.head_dim),
        attn_softcap=float(config.get("attn_logit_softcapping", 50.0) or 0) if second else 0.0,
        final_softcap=float(config.get("final_logit_softcapping", 30.0) or 0) if second else 0.0,
        window=int(config.get("sliding_window", 4096) or 0) if second else 0,
        sliding=_sliding(config, shape.layers) if second else (False,) * shape.layers,
        bos=int(config.get("bos_token_id", 2)),
        eos=eos,
    )


def _sliding(config: dict[str, Any], layers: int) -> tuple[bool, ...]:
    kinds = config.get("layer_types")
    if kinds is None:  # the hub's files: every second layer is global, the first slides
        return tuple(i % 2 == 0 for i in range(layers))
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
    return tuple(kind == "sliding_attention" for kind in kinds)


def _end_ids(directory: Path, config: dict[str, Any]) -> tuple[int, ...]:
    path = directory / "generation_config.json"
    ids = (read_json(path) if path.exists() else {}).get("eos_token_id", config.get("eos_token_id", 1))
    found = ids if isinstance(ids, list) else [ids]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None)) or (1,)


def _check(path: Path, config: dict[str, Any], spec: ModelSpec) -> None:
    activation = config.get("hidden_activation", config.get("hidden_act"))
    if not isinstance(activation, (str, type(None))) or activation not in TANH_GELU:
        raise CheckpointError(f"{path}: activation {activation!r} is not Gemma's tanh GELU")
    if config.get("attention_bias"):
        raise CheckpointError(f"{path}: attention_bias is not Gemma 1 or 2")
    if spec.shape.head_dim % 2 or spec.shape.heads % spec.shape.kv_heads:
        raise CheckpointError(f"{path}: impossible dimensions (head_dim or num_key_value_heads)")
    odd = _odd_numbers(spec)
    if odd:
        raise CheckpointError(f"{path}: impossible {', '.join(odd)}")


def _odd_numbers(spec: ModelSpec) -> list[str]:
    """Name the fields whose numbers no model can have."""
    above = ("rms_eps", "rope_theta", "query_scalar")
    odd = [name for name in above if not 0 < getattr(spec, name) < math.inf]
    caps = ("attn_softcap", "final_softcap", "window")
    odd += [name for name in caps if not 0 <= getattr(spec, name) < math.inf]
    ids = {"bos": (spec.bos,), "eos": spec.eos}
    return odd + [name for name, found in ids.items() if not all(0 <= i < spec.shape.vocab for i in found)]
