"""What a checkpoint's config.json says, in one form for both spellings in circulation.

transformers 5 writes `dtype`, `rope_parameters`, `layer_types`; the files on the hub hold `torch_dtype`,
`rope_theta` and no `layer_types`, and Gemma 1 spells its tanh GELU "gelu".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rk_gemma.checkpoint.rope import rope_theta
from rk_gemma.checkpoint.values import LARGEST, cap, cut, ids, real, whole
from rk_gemma_runtime.errors import CheckpointError
from rk_gemma_runtime.memory.shape import FAMILIES, read_shape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.memory.shape import Shape

T = TypeVar("T")

TANH_GELU = {"gelu_pytorch_tanh", "gelu", "gelu_tanh", None}
LAYER_TYPES = {"sliding_attention", "full_attention"}
# A model for another task has a head of its own, and its weights were trained for that one.
OTHER_TASK = re.compile(r"For(?!CausalLM)\w+")


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
    # transformers takes the ends of an answer from the first file that names any.
    ends = _ends(directory / "generation_config.json")
    spec = _taken(path, lambda: _spec(read_shape(config, family), config, ends))
    _check(path, config, spec)
    return spec


def _ends(path: Path) -> tuple[int, ...]:
    """Read the ids that end an answer, if the file is there and names any."""
    tree = read_json(path) if path.exists() else {}
    return _taken(path, lambda: ids(tree, "eos_token_id", ()))


def _taken(path: Path, take: Callable[[], T]) -> T:
    """Take something from one of the JSON files. Raises CheckpointError that names the file."""
    try:
        return take()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a usable Gemma config: {cut(_missing(error))}") from error


def _family(path: Path, config: dict[str, Any]) -> str:
    kind = config.get("model_type")
    if kind in FAMILIES and not config.get("text_config"):
        return str(kind)
    raise CheckpointError(
        f"{path}: model_type {cut(repr(kind))} is not Gemma 1 or 2 (supported: {', '.join(FAMILIES)});"
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


def _spec(shape: Shape, config: dict[str, Any], ends: tuple[int, ...]) -> ModelSpec:
    second = shape.family == "gemma2"
    return ModelSpec(
        shape=shape,
        rms_eps=real(config, "rms_norm_eps", 1e-6),
        rope_theta=rope_theta(config),
        query_scalar=real(config, "query_pre_attn_scalar", 256) if second else float(shape.head_dim),
        attn_softcap=cap(config, "attn_logit_softcapping", 50.0) if second else 0.0,
        final_softcap=cap(config, "final_logit_softcapping", 30.0) if second else 0.0,
        window=(whole(config, "sliding_window", 0) if "sliding_window" in config else 4096) if second else 0,
        sliding=_sliding(config, shape.layers) if second else (False,) * shape.layers,
        bos=whole(config, "bos_token_id", 2),
        eos=ends or ids(config, "eos_token_id", (1,)),
    )


def _sliding(config: dict[str, Any], layers: int) -> tuple[bool, ...]:
    kinds = config.get("layer_types")
    if kinds is None:  # the hub's files: every second layer is global, the first slides
        return tuple(i % 2 == 0 for i in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers:
        count = f"{len(kinds)} entries" if isinstance(kinds, list) else repr(kinds)
        raise ValueError(f"layer_types has {count} for {layers} layers")
    odd = [kind for kind in kinds if not isinstance(kind, str) or kind not in LAYER_TYPES]
    if odd:
        raise ValueError(f"layer_types has {odd[0]!r}, which is not Gemma 1 or 2")
    return tuple(kind == "sliding_attention" for kind in kinds)


def _check(path: Path, config: dict[str, Any], spec: ModelSpec) -> None:
    activation = config.get("hidden_activation", config.get("hidden_act"))
    if not isinstance(activation, (str, type(None))) or activation not in TANH_GELU:
        raise CheckpointError(f"{path}: activation {cut(repr(activation))} is not Gemma's tanh GELU")
    other = next((key for key in ("attention_bias", "use_bidirectional_attention") if config.get(key)), "")
    if other:
        raise CheckpointError(f"{path}: {other} is not Gemma 1 or 2")
    task = OTHER_TASK.search(str(config.get("architectures")))
    if task:
        raise CheckpointError(f"{path}: a model {_spaced(task[0])}, not one that writes; export a Gemma*ForCausalLM")
    if spec.shape.head_dim % 2 or spec.shape.heads % spec.shape.kv_heads:
        raise CheckpointError(f"{path}: impossible dimensions (head_dim or num_key_value_heads)")
    odd = _odd_numbers(spec)
    if odd:
        raise CheckpointError(f"{path}: impossible {', '.join(odd)}")


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _odd_numbers(spec: ModelSpec) -> list[str]:
    """Name the fields whose numbers no model can have."""
    above = ("rms_eps", "rope_theta", "query_scalar")
    odd = [name for name in above if not 1 / LARGEST < getattr(spec, name)]
    caps = ("attn_softcap", "final_softcap", "window")
    odd += [name for name in caps if not 0 <= getattr(spec, name) < LARGEST]
    ids = {"bos": (spec.bos,), "eos": spec.eos}
    return odd + [name for name, found in ids.items() if not all(0 <= i < spec.shape.vocab for i in found)]
