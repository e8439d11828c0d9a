"""Which GGUF of a repository makes the bundle: one file, or all parts of a split one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.hub.choose import GB, there
from rk_gemma.parts.ggufnames import is_model_name, is_raw_part, read_gguf_name
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rk_gemma.hub.files import RemoteFile
    from rk_gemma.hub.repository import Repository
    from rk_gemma.parts.ggufnames import GgufName
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.shape import Shape

CPU_WORK_BYTES = 300 << 20
# From the most exact on; all others are chosen by name only.
PREFERRED = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class GgufSet:
    """One model: a file, or the `parts` of one. `quant` by the name, empty where it does not say; `model` is the name
    without it."""

    quant: str
    files: tuple[RemoteFile, ...]
    model: str = ""
    parts: int = 0

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(file.size for file in self.files)


def gguf_sets(repository: Repository) -> list[GgufSet]:
    """Group the GGUF models of a repository."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in repository.ending(".gguf"):
        if is_model_name(file.path):
            groups.setdefault(read_gguf_name(file.path).base, []).append(file)
    sets = []
    for files in groups.values():
        files.sort(key=lambda file: read_gguf_name(file.path).shard)
        names = [read_gguf_name(file.path) for file in files]
        sets.append(GgufSet(names[0].quant, tuple(files), model_of(names[0]), names[0].shards))
    return sets


def model_of(name: GgufName) -> str:
    """Name the model without its type: what several files of one model share."""
    text = name.base.rpartition("/")[2].lower()
    return re.sub(rf"[-_.]*(?:ud-|i1-)*{re.escape(name.quant.lower())}(?![a-z0-9])" if name.quant else "$^", "", text)


def choose_gguf(
    repository: Repository, quant: str, wanted: str, shape: Shape | None, board: Board
) -> tuple[GgufSet, str]:
    """Choose a model that is there whole, and say why. Raises InputError or UsageError with what there is."""
    chosen, why = _choose(repository, quant, wanted, shape, board)
    have = [read_gguf_name(file.path).shard for file in chosen.files]
    if chosen.parts and have != list(range(1, chosen.parts + 1)):
        first = chosen.files[0].path
        raise InputError(
            f"{repository.id}: {first}: {len(have)} of {chosen.parts} parts are there; choose another type"
        )
    return chosen, why


def _choose(
    repository: Repository, quant: str, wanted: str, shape: Shape | None, board: Board
) -> tuple[GgufSet, str]:
    sets = gguf_sets(repository)
    known = ", ".join(sorted({one.quant for one in sets if one.quant})) or "none"
    if wanted:
        for one in sets:
            if any(wanted in (file.path, file.name) for file in one.files):
                return one, "as asked"
        raise UsageError(f"{repository.id}: no GGUF model {wanted!r} (--file); its types are {known}")
    if not sets:
        raw = [file.path for file in repository.files if is_raw_part(file.path)]
        advice = f"{raw[0]} is cut into raw parts: join them, then `rk-gemma pack`" if raw else there(repository, ())
        raise InputError(f"{repository.id}: no GGUF model; {advice}")
    if quant:
        named = _of_one_model(repository, [one for one in sets if one.quant == quant.upper()])
        if not named:
            raise UsageError(f"{repository.id}: no GGUF of type {quant}; it has {known}")
        return named[0], "as asked"
    if len(sets) == 1:
        return sets[0], "the only one"
    return _best(_of_one_model(repository, sets), shape, board)


def _of_one_model(repository: Repository, sets: list[GgufSet]) -> list[GgufSet]:
    """Raise UsageError if these are several models: which one is meant cannot be told."""
    models = sorted({one.model for one in sets})
    if len(models) > 1:
        files = ", ".join(one.files[0].path for one in sets[:6])
        raise UsageError(f"{repository.id}: GGUF files of {len(models)} models; choose one with --file: {files}")
    return sets


def _best(sets: Sequence[GgufSet], shape: Shape | None, board: Board) -> tuple[GgufSet, str]:
    """The most exact type that fits the board's memory."""
    available = board.memory.available
    cache = shape.kv_bytes_per_token * DEFAULT_CONTEXT if shape else 0
    for quant in PREFERRED:
        for one in sets:
            if one.quant == quant and (available is None or one.size + cache + CPU_WORK_BYTES <= available):
                room = "" if available is None else f" into the {available / GB:.1f} GB that are free"
                return one, f"the most exact that fits{room}"
    smallest = min(sets, key=lambda one: one.size)
    return smallest, "the smallest; none of the usual types fits the board's memory"
