"""A PEFT directory as pairs of matrices, held against the base model."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rk_gemma.checkpoint.header import read_tensors
from rk_gemma.checkpoint.hub import check_digest
from rk_gemma.checkpoint.names import expected_shapes
from rk_gemma.checkpoint.proof import state_of
from rk_gemma.export.lora.peft import CONFIG, LAYERS, MERGE, PeftConfig, read_peft
from rk_gemma.export.simfile import LINEAR
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from rk_gemma.checkpoint import ModelSpec, Tensor
    from rk_gemma.export.lora.sources import LoraSource

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
NAME = re.compile(
    r"(?:base_model\.model\.)?(?:model\.)?layers\.(\d{1,4})\.((?:self_attn|mlp)\.\w+)\.lora_([AB])\.weight"
)


@dataclass(frozen=True)
class Pair:
    """One layer's update, W + scaling * B A. `a` is [rank, in], `b` [out, rank]; `module` as self_attn.q_proj."""

    layer: int
    module: str
    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """Rows of `a`."""
        return self.a.shape[0]

    def b_times(self, factor: float) -> NDArray[np.float32]:
        """Multiply B; the bounds on weights, alphas and ranks keep it inside float32. Raises CheckpointError."""
        values: NDArray[np.float32] = (self.b.read().astype(np.float64) * factor).astype(np.float32)
        return values


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter that fits its base. `pairs` in the order of layers; `scaling` and `rank` of those that no pattern
    names."""

    source: LoraSource
    config: PeftConfig
    pairs: tuple[Pair, ...]

    @classmethod
    def open(cls, source: LoraSource, spec: ModelSpec) -> LoraAdapter:
        """Read config and header and check them; values are checked as they are written. Raises CheckpointError."""
        config = read_peft(source.directory, spec)
        path = source.directory / WEIGHTS
        halves = _halves(path, _tensors(path))
        pairs = tuple(_pairs(path, halves, config, spec))
        _check_complete(path, pairs, config, spec)
        return cls(source, config, pairs)

    @property
    def parameters(self) -> int:
        """Number of values in all pairs."""
        return sum(t.rows * t.cols for p in self.pairs for t in (p.a, p.b))

    def fingerprint(self) -> str:
        """Return a text that changes when a file of the adapter does."""
        paths = (self.source.directory / CONFIG, self.source.directory / WEIGHTS)
        facts = [state_of(path) for path in paths]
        return hashlib.sha256(json.dumps([self.source.name, facts]).encode()).hexdigest()


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        check_digest(path)
        return read_tensors(path)
    except FileNotFoundError:
        pickled = (path.parent / PICKLE).exists()
        what = f"only {PICKLE}, a pickle, which may run code" if pickled else f"no {WEIGHTS} here"
        raise CheckpointError(f"{path.parent}: {what}; save it with safe_serialization=True") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _halves(path: Path, tensors: Mapping[str, Tensor]) -> dict[tuple[int, str, str], Tensor]:
    """Sort tensors by layer, module and A or B."""
    found: dict[tuple[int, str, str], Tensor] = {}
    for name, tensor in tensors.items():
        match = NAME.fullmatch(name)
        if match is None or match[2] not in LINEAR.values():
            raise CheckpointError(
                f"{path}: tensor {name} is not a LoRA weight of a linear layer of Gemma"
                f" ({', '.join(sorted(LAYERS))}); {MERGE}"
            )
        key = (int(match[1]), match[2], match[3])
        if key in found:
            raise CheckpointError(f"{path}: tensors {found[key].name} and {name} are the same one; save it again")
        found[key] = tensor
    if not found:
        raise CheckpointError(f"{path}: holds no LoRA weights; save the adapter again")
    return found


def _pairs(path: Path, halves: dict[tuple[int, str, str], Tensor], config: PeftConfig, spec: ModelSpec) -> list[Pair]:
    order = list(LINEAR.values())
    keys = sorted({key[:2] for key in halves}, key=lambda k: (k[0], order.index(k[1])))
    return [_pair(path, layer, module, halves, config, spec) for layer, module in keys]


def _pair(
    path: Path,
    layer: int,
    module: str,
    halves: dict[tuple[int, str, str], Tensor],
    config: PeftConfig,
    spec: ModelSpec,
) -> Pair:
    if layer >= spec.shape.layers:
        raise CheckpointError(
            f"{path}: has layer {layer}, the base model only {spec.shape.layers}; is its base another?"
        )
    full = _full(layer, module)
    a, b = (halves.get((layer, module, half)) for half in "AB")
    if a is None or b is None:
        raise CheckpointError(f"{path}: {full} has lora_{'B' if a is None else 'A'} only; save the adapter again")
    rank = config.rank_of(full)
    out, into = expected_shapes(spec)[f"{full}.weight"]
    for tensor, wanted in ((a, (rank, into)), (b, (out, rank))):
        if tensor.shape != wanted:
            raise CheckpointError(
                f"{path}: tensor {tensor.name} has shape {list(tensor.shape)}; the base model and r of {CONFIG} want"
                f" {list(wanted)}: is its base another?"
            )
    return Pair(layer, module, a, b, config.scaling_of(full))


def _full(layer: int, module: str) -> str:
    return f"model.layers.{layer}.{module}"


def _check_complete(path: Path, pairs: tuple[Pair, ...], config: PeftConfig, spec: ModelSpec) -> None:
    there = {_full(pair.layer, pair.module) for pair in pairs}
    for layer in range(spec.shape.layers):
        for module in LINEAR.values():
            full = _full(layer, module)
            if full not in there and config.wants(layer, full):
                raise CheckpointError(
                    f"{path}: nothing for {full}, which {CONFIG} targets; is its base smaller, or the file not whole?"
                )
