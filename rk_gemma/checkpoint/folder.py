"""A checkpoint directory, opened: what it is, its tensors by transformers' names, and what is to be said about it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rk_gemma.checkpoint.config import ModelSpec, read_json, read_spec
from rk_gemma.checkpoint.foreign import ORIGINAL, adapter, foreign
from rk_gemma.checkpoint.formats import method_of, quantised
from rk_gemma.checkpoint.ggufsource import open_gguf
from rk_gemma.checkpoint.hub import Origin, check_digest, origin, snapshot
from rk_gemma.checkpoint.int8 import is_joined, joined
from rk_gemma.checkpoint.missing import why_missing
from rk_gemma.checkpoint.names import EMBEDDING, HEAD, Named, canonical, expected_shapes, unmerged
from rk_gemma.checkpoint.place import no_directory
from rk_gemma.checkpoint.proof import state_of
from rk_gemma.checkpoint.weights import choose
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rk_gemma.checkpoint.ggufsource import GgufModel
    from rk_gemma.checkpoint.reader import Tensor
    from rk_gemma.checkpoint.weights import WeightSet

TEXTS = ("config.json", "generation_config.json", "tokenizer.model", "tokenizer.json", 
         "tokenizer_config.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
         "model.safetensors.index.json")  # fmt: skip
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
# Tensors of a layer that change what it computes. Others (rotary_emb.inv_freq, scales of a cache) do not.
COMPUTES = re.compile(r"(bias|(q|k)_norm\.weight|\w*layernorm\.weight|(self_attn|mlp)\.\w+_proj\.weight)$")


class Checkpoint:
    """A checkpoint directory: its spec and its tensors by Hugging Face name. Holds no open file.

    `lm_head.weight` is among the tensors only if it differs from the embedding. `notes` are lines for the user.
    `inside` is what a single file holds beside its tensors; then `directory` is that file.
    """

    def __init__(
        self,
        directory: Path,
        spec: ModelSpec,
        tensors: Mapping[str, Tensor],
        notes: tuple[str, ...] = (),
        inside: GgufModel | None = None,
    ) -> None:
        self.directory = directory
        self.inside = inside
        self.spec = spec
        self.tensors = tensors
        self.notes = notes

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read config and headers and hold every expected tensor against its shape. Raises CheckpointError."""
        if directory.suffix.lower() == ".gguf" and os.path.isfile(directory):
            return cls._of_gguf(directory)
        directory = _found(directory)
        spec, config = read_spec(directory), read_json(directory / "config.json")
        (tensors, said), others = choose(directory, lambda offer: _picked(directory, spec, config, offer))
        try:
            for path in sorted({*_texts(directory), *(tensor.path for tensor in tensors.values())}):
                check_digest(path)
        except OSError as error:
            raise CheckpointError(f"{error.filename or directory}: cannot be read: {error.strerror}") from error
        return cls(directory, spec, _tied(tensors), (*others, *said))

    @classmethod
    def _of_gguf(cls, path: Path) -> Checkpoint:
        found = open_gguf(path)
        try:
            check_digest(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(path, found.spec, _tied(found.tensors), inside=found)

    def with_spec(self, spec: ModelSpec) -> Checkpoint:
        """Return the same with another spec, such as another context."""
        return Checkpoint(self.directory, spec, self.tensors, self.notes, self.inside)

    @property
    def head(self) -> Tensor:
        """The output layer: the embedding, or a matrix of its own."""
        return self.tensors.get(HEAD, self.tensors[EMBEDDING])

    @property
    def untied(self) -> bool:
        """Whether the output layer is a matrix of its own."""
        return HEAD in self.tensors

    @property
    def origin(self) -> Origin:
        """Where it comes from, as far as the directory tells."""
        return origin(self.directory)

    @property
    def tokenizer(self) -> Path | None:
        """The SentencePiece model, if the checkpoint has one."""
        path = self.directory / "tokenizer.model"
        return path if path.is_file() else None

    def fingerprint(self) -> str:
        """Return a text that changes when any file that an export depends on does (see `state_of`)."""
        paths = {t.path for t in self.tensors.values()} | set(_texts(self.directory))
        facts = [state_of(path) for path in sorted(paths)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _texts(directory: Path) -> list[Path]:
    """List the files besides weights that an export may read."""
    return [path for name in TEXTS if (path := directory / name).is_file()]


def _found(directory: Path) -> Path:
    """Return where the checkpoint lies. Raises CheckpointError, by what it is, for what is not one at all."""
    if not os.path.isdir(directory):  # Path.is_dir raises for a name that is too long
        raise CheckpointError(no_directory(directory))
    if (directory / "config.json").exists():
        return directory
    inner = snapshot(directory)
    if inner != directory:
        return inner
    other = adapter(directory) if any(directory.glob("*.safetensors")) else foreign(directory)
    if other:
        raise CheckpointError(f"{directory}: {other}")
    return directory


def _picked(
    place: Path, spec: ModelSpec, config: Mapping[str, Any], offer: WeightSet
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Pick the model's tensors out of a set, then judge them, then account for the rest. Raises CheckpointError."""
    stored = joined(offer.stored())
    kind = quantised(config, stored)
    if kind:
        raise CheckpointError(f"{place}: quantised weights ({kind}); {ORIGINAL}")
    adapted = unmerged(tensor.name for tensor in stored)
    if adapted:
        raise CheckpointError(
            f"{place}: tensor {adapted} belongs to an adapter that is not merged; merge_and_unload it, save, export"
        )
    named = canonical(place, stored)
    wanted = _wanted(spec, config, named)
    tensors = {name: _judged(place, config, name, wanted, named) for name in wanted}
    return tensors, (*_about(place, config, named), *_left_out(place, spec, named, wanted))


def _wanted(spec: ModelSpec, config: Mapping[str, Any], named: Named) -> dict[str, tuple[int, ...]]:
    shapes = expected_shapes(spec)
    if HEAD in named.tensors or config.get("tie_word_embeddings") is False:
        shapes[HEAD] = shapes[EMBEDDING]
    return shapes


def _judged(
    place: Path, config: Mapping[str, Any], name: str, wanted: Mapping[str, tuple[int, ...]], named: Named
) -> Tensor:
    stored = named.tensors.get(name)
    if stored is None:
        reason = why_missing(config, name, named.tensors.keys(), wanted)
        raise CheckpointError(f"{place}: tensor {name} is missing; {reason}")
    if stored.shape != wanted[name]:
        raise CheckpointError(
            f"{stored.path}: tensor {stored.name} has shape {list(stored.shape)}, config.json wants"
            f" {list(wanted[name])}"
        )
    return stored.tensor()


def _about(place: Path, config: Mapping[str, Any], named: Named) -> tuple[str, ...]:
    lines = []
    if named.change:
        lines.append(f"{place}: names of tensors {named.change}")
    method = method_of(config)
    if is_joined(named.tensors.values()):
        lines.append(f"{place}: int8 weights of bitsandbytes are read as the numbers that they stand for")
    elif method:
        lines.append(
            f"{place}: config.json says {method} and the weights are plain numbers; they are taken as they are"
        )
    return tuple(lines)


def _left_out(place: Path, spec: ModelSpec, named: Named, wanted: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """State the tensors that Gemma does not have. Raises CheckpointError for one that the answers depend on."""
    extra = {name: stored for name, stored in named.tensors.items() if name not in wanted}
    for name, stored in extra.items():
        match = LAYER.fullmatch(name)
        if match and int(match[1]) >= spec.shape.layers:
            raise CheckpointError(
                f"{place}: holds tensor {stored.name}, config.json says {spec.shape.layers} layers; is it another's?"
            )
        if match and COMPUTES.search(match[2]):
            raise CheckpointError(
                f"{place}: tensor {stored.name} has no place in {spec.shape.family}; not a plain Gemma"
            )
    names = [stored.name for stored in extra.values()]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (f"{place}: not part of the model and left out: {', '.join(names[:3])}{more}",) if names else ()


def _tied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop a head that holds the embedding's own values."""
    head, table = tensors.get(HEAD), tensors[EMBEDDING]
    if head is None or not all(np.array_equal(a, b) for a, b in zip(head.blocks(), table.blocks(), strict=True)):
        return tensors
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}
