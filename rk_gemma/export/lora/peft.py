"""adapter_config.json, as PEFT writes it: the numbers of a plain LoRA, and a refusal of everything else.

What PEFT computes is `W x + scaling * B (A x)` with scaling = alpha / r, or alpha / sqrt(r) if use_rslora; the keys
of rank_pattern and alpha_pattern are regular expressions for the end of a module's name, and the first that fits
counts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma.export.simfile import LINEAR
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec

CONFIG = "adapter_config.json"
MERGE = "merge it into its base model (PEFT's merge_and_unload) and export the result"
RETRAIN = "train it as plain LoRA"
# Keys under which an adapter is more, or something else, than B A on linear layers.
NOT_PLAIN = {
    "use_dora": MERGE, "use_bdlora": MERGE, "kasa_config": MERGE, "modules_to_save": MERGE,
    "trainable_token_indices": MERGE, "target_parameters": MERGE, "lora_bias": RETRAIN, "use_qalora": RETRAIN,
    "monteclora_config": RETRAIN, "arrow_config": RETRAIN, "alora_invocation_tokens": RETRAIN,
    "layer_replication": RETRAIN, "fan_in_fan_out": "Gemma's linear layers are not transposed: set it to false",
}  # fmt: skip
# Ways to start that leave the base weights alone; PiSSA and its kin train against other ones.
HONEST_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
LAYERS = {name.rpartition(".")[2] for name in LINEAR.values()}
MOST = 1e6  # of lora_alpha: far above any in use
MOST_RANK = 4096  # what the simulator reads
# How hub ids and class names tell the family.
FAMILIES = {
    "gemma3": re.compile(r"gemma[-_]?3"),
    "gemma2": re.compile(r"gemma[-_]?2(?!\d*b)"),
    # ShieldGemma 2b, TxGemma 2b and their like are Gemma 2: without a number only Gemma's own names tell.
    "gemma": re.compile(r"(?<![a-z])(code)?gemma(forcausallm|[-_]?1(\.1)?(?!\d)|[-_]?[27]b)"),
}


@dataclass(frozen=True)
class PeftConfig:
    """A plain LoRA. `targets` and `layers` are None where the file leaves them open."""

    path: Path
    rank: int
    alpha: float
    stable: bool
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | None
    layers: frozenset[int] | None

    @property
    def scaling(self) -> float:
        """Of modules that no pattern names."""
        return self._scaling(self.alpha, self.rank)

    def rank_of(self, module: str) -> int:
        """Return the rank of `module` as transformers names it: model.layers.0.self_attn.q_proj."""
        return int(_by_pattern(self.ranks, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """Return the factor of this module's B A."""
        return self._scaling(_by_pattern(self.alphas, module, self.alpha), self.rank_of(module))

    def wants(self, layer: int, module: str) -> bool:
        """Whether PEFT puts an update on this module; False where only the tensors can tell."""
        if self.targets is None or (self.layers is not None and layer not in self.layers):
            return False
        return any(module == t or module.endswith(f".{t}") for t in self.targets)

    def _scaling(self, alpha: float, rank: int) -> float:
        return alpha / (math.sqrt(rank) if self.stable else rank)


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    fits = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(fits, default)


def read_peft(directory: Path, spec: ModelSpec) -> PeftConfig:
    """Read and check the file. Raises CheckpointError: one line with file, key and what to do."""
    path = directory / CONFIG
    config = _load(path)
    try:
        _check_kind(path, config)
        _check_family(path, config, spec)
        targets = _targets(path, config)
        return PeftConfig(
            path=path,
            rank=_rank(config["r"], "r"),
            alpha=_alpha(config["lora_alpha"], "lora_alpha", above=1 / MOST),
            stable=bool(config.get("use_rslora")),
            ranks={k: _rank(v, f"rank_pattern {k}") for k, v in _patterns(config, "rank_pattern")},
            alphas={k: _alpha(v, f"alpha_pattern {k}") for k, v in _patterns(config, "alpha_pattern")},
            targets=None if config.get("exclude_modules") else targets,
            layers=_layers(config.get("layers_to_transform")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: not a usable LoRA config: {said}; save the adapter again") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path.parent}: no {CONFIG} here; give the directory that PEFT's save_pretrained wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object; save the adapter again")
    return config


def _check_kind(path: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type {config.get('peft_type')!r} is not LORA; {MERGE}")
    for key, advice in NOT_PLAIN.items():
        if config.get(key):
            raise CheckpointError(f"{path}: {key} is set, and only plain LoRA can be exported; {advice}")
    if config.get("bias") not in (None, "none"):
        raise CheckpointError(f"{path}: bias is {config['bias']!r}; Gemma has no biases: train it with bias none")
    if config.get("init_lora_weights") not in HONEST_STARTS:
        raise CheckpointError(
            f"{path}: init_lora_weights {config['init_lora_weights']!r} trained against changed base weights; save it"
            " with path_initial_model_for_weight_conversion, or merge it and export the result"
        )


def _check_family(path: Path, config: dict[str, Any], spec: ModelSpec) -> None:
    """Check the family by name. Shapes decide in the end; a name gives the better message."""
    for text in ((config.get("auto_mapping") or {}).get("base_model_class"), config.get("base_model_name_or_path")):
        family = family_of(text) if isinstance(text, str) else None
        if family not in (None, spec.shape.family):
            raise CheckpointError(
                f"{path}: made for {text}, which is {family}; this checkpoint is {spec.shape.family}: export the"
                " adapter with its own base model"
            )


def family_of(model: str) -> str | None:
    """Tell gemma, gemma2 or gemma3 by a hub id or a class name; None if it does not tell, as no local path does."""
    if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", model):
        return None
    last = model.rpartition("/")[2].lower()
    return next((family for family, pattern in FAMILIES.items() if pattern.search(last)), None)


def _targets(path: Path, config: dict[str, Any]) -> tuple[str, ...] | None:
    """Read the target modules; None for a regular expression, "all-linear" and nothing: then the tensors tell."""
    given = config.get("target_modules")
    if given is None or isinstance(given, str):
        return None
    for name in given:
        if name.rpartition(".")[2] not in LAYERS:
            raise CheckpointError(
                f"{path}: target module {name} is not a linear layer of Gemma ({', '.join(sorted(LAYERS))}); {MERGE}"
            )
    return tuple(given)


def _layers(given: Any) -> frozenset[int] | None:
    if given is None:
        return None
    return frozenset(int(n) for n in ([given] if isinstance(given, int) else given))


def _patterns(config: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    found = list((config.get(key) or {}).items())
    for pattern, _ in found:
        try:
            re.compile(rf"(.*\.)?({pattern})$")
        except re.error as error:
            raise ValueError(f"{key} {pattern!r} is not a regular expression ({error})") from error
    return found


def _rank(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST_RANK:
        raise ValueError(f"impossible {what} {value!r}")
    return value


def _alpha(value: Any, what: str, above: float = -MOST) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above <= value <= MOST:
        raise ValueError(f"impossible {what} {value!r}")
    return float(value)
