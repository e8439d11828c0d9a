"""Which files of a directory hold the model's weights.

A directory may hold several sets; they are tried in transformers' order. A set is taken only if it is whole, and what
is not taken is stated.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rk_gemma.checkpoint.config import read_json
from rk_gemma.checkpoint.foreign import PICKLES, adapter, foreign, is_training_state
from rk_gemma.checkpoint.header import Stored, read_header
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
REST = "; download the rest"
NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


@dataclass(frozen=True)
class WeightSet:
    """Files that hold one model together. `homes` is the index: tensor to file; `fault` says why the set cannot be
    read, if that is known before a file is opened."""

    label: str
    files: tuple[Path, ...] = ()
    homes: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    def stored(self) -> list[Stored]:
        """Read the headers. Raises CheckpointError."""
        if self.fault:
            raise CheckpointError(self.fault)
        found: dict[str, Stored] = {}
        for path in self.files:
            for tensor in _header(path):
                first = found.setdefault(tensor.name, tensor)
                if first is not tensor:
                    found[tensor.name] = self._at_home(first, tensor)
        return list(found.values())

    def _at_home(self, first: Stored, second: Stored) -> Stored:
        home = self.homes.get(first.name)
        for tensor in (first, second):
            if tensor.path.name == home:
                return tensor
        raise CheckpointError(
            f"{second.path}: tensor {first.name} is in {first.path.name} too; keep one of the files"
        )


def choose(directory: Path, judge: Callable[[WeightSet], T]) -> tuple[T, tuple[str, ...]]:
    """Take the first set that `judge` accepts; return what it made of it, and lines about what is not taken.

    Raises CheckpointError: the first set's fault if no set is whole.
    """
    offers = _offers(directory)
    if not offers:
        raise CheckpointError(f"{directory}: {_nothing(directory)}")
    faults: list[CheckpointError] = []
    for offer in offers:
        try:
            made = judge(offer)
        except CheckpointError as error:
            faults.append(error)
            continue
        untried = [other.fault for other in offers[len(faults) :]]
        known = zip(offers, [*map(str, faults), *untried], strict=True)
        refused = [f"{other.label} ({_brief(directory, fault)})" for other, fault in known if fault]
        return made, _lines(directory, offer, refused, offers)
    raise faults[0]


def _brief(directory: Path, fault: str) -> str:
    """Say a fault without what does not matter where another set is taken."""
    missing = fault.endswith(REST)
    return ("stale: " if missing else "") + fault.removeprefix(f"{directory}: ").removesuffix(REST)


def _header(path: Path) -> list[Stored]:
    try:
        return read_header(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _offers(directory: Path) -> list[WeightSet]:
    """List the sets in the order in which transformers looks for them; what it would not find comes last."""
    found = []
    if os.path.lexists(directory / SINGLE):
        found.append(_single(directory / SINGLE))
    if (directory / INDEX).exists():
        found.append(_indexed(directory, directory / INDEX))
    found += _unindexed(directory)
    if not found:
        others = [path for path in sorted(directory.glob("*.safetensors")) if _may_be_weights(path.name)]
        found = [WeightSet(path.name, (path,)) for path in others[:1] if len(others) == 1]
    different = {offer.files or (offer.label,): offer for offer in reversed(found)}
    return [offer for offer in found if different[offer.files or (offer.label,)] is offer]


def _may_be_weights(name: str) -> bool:
    return name != ADAPTER and not is_training_state(name)


def _single(path: Path) -> WeightSet:
    fault = (
        ""
        if path.is_file()
        else f"{path}: {'a broken link; download it again' if path.is_symlink() else 'not a file'}"
    )
    return WeightSet(SINGLE, (path,), fault=fault)


def _indexed(directory: Path, index: Path) -> WeightSet:
    try:
        homes = {str(tensor): name for tensor, name in read_json(index)["weight_map"].items()}
        names = sorted(set(homes.values()))
    except (CheckpointError, KeyError, AttributeError, TypeError) as error:
        return WeightSet(INDEX, fault=f"{index}: not a safetensors index: {error}")
    if any(not isinstance(name, str) or Path(name).name != name or "\0" in name for name in names):
        return WeightSet(INDEX, fault=f"{index}: a shard's name leaves the directory")
    missing = [name for name in names if not os.path.isfile(directory / name)]
    fault = (
        f"{directory}: {len(missing)} of {len(names)} shards missing (first: {missing[0]}){REST}"
        if missing
        else ""
        if names
        else f"{index}: not a safetensors index: it names no file"
    )
    return WeightSet(INDEX, tuple(directory / name for name in names), homes, fault)


def _unindexed(directory: Path) -> list[WeightSet]:
    """Find rows of numbered files, which need no index."""
    rows: dict[tuple[str, int], list[Path]] = {}
    for path in sorted(directory.glob("*-of-*.safetensors")):
        match = NUMBERED.fullmatch(path.name)
        if match and path.is_file():
            rows.setdefault((match[1], int(match[3])), []).append(path)
    return [_row(directory, stem, count, paths) for (stem, count), paths in rows.items()]


def _row(directory: Path, stem: str, count: int, paths: list[Path]) -> WeightSet:
    fault = f"{directory}: {len(paths)} of {count} numbered files are here (first: {paths[0].name}){REST}"
    label = f"{stem}-*-of-{paths[0].name.rpartition('-')[2]}"
    return WeightSet(label, tuple(paths), fault="" if len(paths) == count else fault)


def _nothing(directory: Path) -> str:
    """Say why there is nothing to take."""
    names = sorted(path.name for path in directory.glob("*.safetensors"))
    if names == [ADAPTER]:
        return adapter(directory)
    if any(map(_may_be_weights, names)):
        meant = f"{len(names)} files that could be meant: {', '.join(names[:3])}"
        return f"no {SINGLE} and no {INDEX}, and {meant}; keep one whole set"
    return foreign(directory) or f"no {SINGLE} and no {INDEX}"


def _lines(directory: Path, taken: WeightSet, refused: list[str], offers: list[WeightSet]) -> tuple[str, ...]:
    """State what was taken, if anything else could have been."""
    endings = (".safetensors", ".gguf", *PICKLES)
    names = sorted(p.name for p in directory.iterdir() if p.name.endswith(endings) and not is_training_state(p.name))
    unread = [name for name in names if name not in {path.name for path in taken.files}]
    if not refused and not unread:
        return ()
    said = [f"not usable: {', '.join(refused)}"] if refused else []
    said += [f"not read: {', '.join(unread[:4])}{' ...' if len(unread) > 4 else ''}"] if unread else []
    why = ", as transformers does" if taken is offers[0] and len(offers) > 1 else ""
    return (f"{directory}: the weights are taken from {taken.label}{why}; {'; '.join(said)}",)
