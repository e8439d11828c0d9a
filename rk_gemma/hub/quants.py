"""Which GGUF of a repository makes the bundle: one file, or all parts of a split one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.hub.choose import GB, there
from rk_gemma.parts.ggufnames import is_model_name, is_raw_part, read_gguf_name
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rk_gemma.hub.repository import RemoteFile, Repository
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.shape import Shape

CPU_WORK_BYTES = 300 << 20
# From the most exact on; all others are chosen by name only.
PREFERRED = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class GgufSet:
    """One model: a file, or all parts of one. `quant` by the name, empty where it does not say."""

    quant: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(file.size for file in self.files)


def gguf_sets(repository: Repository) -> list[GgufSet]:
    """Group the GGUF models of a repository. Raises InputError for a part that lacks others."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in repository.ending(".gguf"):
        if is_model_name(file.path):
            groups.setdefault(read_gguf_name(file.path).base, []).append(file)
    sets = []
    for files in groups.values():
        files.sort(key=lambda file: read_gguf_name(file.path).shard)
        names = [read_gguf_name(file.path) for file in files]
        if names[0].shards and [name.shard for name in names] != list(range(1, names[0].shards + 1)):
            raise InputError(f"{repository.id}: {files[0].path}: {len(files)} of {names[0].shards} parts are there")
        sets.append(GgufSet(names[0].quant, tuple(files)))
    return sets


def choose_gguf(
    repository: Repository, quant: str, wanted: str, shape: Shape | None, board: Board
) -> tuple[GgufSet, str]:
    """Choose a model and say why. Raises InputError or UsageError with what there is."""
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
        named = [one for one in sets if one.quant == quant.upper()]
        if not named:
            raise UsageError(f"{repository.id}: no GGUF of type {quant}; it has {known}")
        return min(named, key=lambda one: len(one.files[0].path)), "as asked"
    if len(sets) == 1:
        return sets[0], "the only one"
    return _best(sets, shape, board)


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
