"""Which `.rkllm` of a repository makes the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.parts.ggufnames import is_model_name, is_raw_part
from rk_gemma.parts.names import NameFacts, read_names
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.memory.dtypes import find_dtype
from rk_gemma_runtime.memory.models import by_name
from rk_gemma_runtime.memory.plan import FITS, NO, make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rk_gemma.hub.files import RemoteFile
    from rk_gemma.hub.repository import Repository
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.shape import Shape

PLATFORM = "RK3588"
MOST_LISTED = 30
GB = 1e9
_VERDICTS = {FITS: 0, "tight": 1, NO: 3}
UNPLANNED = 2


@dataclass(frozen=True)
class Ranked:
    """An `.rkllm` of a repository, with what its names say and what the plan says of it; `verdict` is empty where
    nothing can be planned."""

    file: RemoteFile
    names: NameFacts
    verdict: str
    speed: float

    @property
    def order(self) -> tuple[object, ...]:
        """Sort the best to the front: it loads, it is fast, and nothing of it is mixed."""
        names = self.names
        return (
            _VERDICTS.get(self.verdict, UNPLANNED), -self.speed, names.hybrid or 0.0, -(names.opt or 0),
            self.file.path,
        )  # fmt: skip

    def line(self) -> str:
        """Describe it for a list."""
        words = [self.names.dtype, self.names.context and f"context {self.names.context}"]
        words += [f"opt {self.names.opt}" if self.names.opt is not None else ""]
        words += [f"hybrid {self.names.hybrid:g}" if self.names.hybrid is not None else ""]
        words += [self.verdict and f"{self.verdict} ({self.speed:.1f} tokens/s)"]
        return f"{self.file.path}  {self.file.size / GB:.2f} GB  {', '.join(map(str, filter(None, words)))}".rstrip()


def rkllm_files(repository: Repository) -> list[RemoteFile]:
    """List the models, without LoRA files."""
    return [file for file in repository.ending(".rkllm") if "lora" not in file.name.lower()]


def shape_by_names(names: NameFacts) -> Shape | None:
    """Find the Gemma that a name means; None for another model."""
    return by_name(f"{'gemma-2' if names.family == 'gemma2' else names.family}-{names.size}")


def ranked(repository: Repository, board: Board) -> list[Ranked]:
    """Rank the `.rkllm` files for a board; those for another platform are left out."""
    found = []
    for file in rkllm_files(repository):
        names = read_names(repository.id, file.path, repository.revision)
        if names.platform in {"", PLATFORM}:
            found.append(Ranked(file, names, *_planned(names, board)))
    return sorted(found, key=lambda one: one.order)


def _planned(names: NameFacts, board: Board) -> tuple[str, float]:
    shape = shape_by_names(names)
    dtype = find_dtype(names.dtype or "w8a8", shape) if shape else None
    if shape is None or dtype is None:
        return "", 0.0
    plan = make_plan(Request(shape, dtype, context=min(names.context or 4096, 4096)), board)
    return plan.verdict, plan.speed.decode


def choose_rkllm(repository: Repository, wanted: str, board: Board, branches: Sequence[str]) -> RemoteFile | None:
    """Choose the `.rkllm`: `wanted`, else the only one for an RK3588; None if the repository has none and has GGUF.
    Raises InputError or UsageError, which say what there is."""
    if wanted:
        named = repository.find(wanted)
        if named is None:
            raise UsageError(f"{repository.id}: no file {wanted!r} (--file); {there(repository, branches)}")
        return named if named.name.lower().endswith(".rkllm") else None
    files = ranked(repository, board)
    if len(files) == 1:
        return files[0].file
    if files:
        lines = [one.line() for one in files[:MOST_LISTED]]
        raise ManyFiles(repository.id, files, lines)
    if rkllm_files(repository):
        platforms = sorted({read_names(repository.id, f.path).platform for f in rkllm_files(repository)})
        raise InputError(f"{repository.id}: its .rkllm files are for {', '.join(platforms)}, not for {PLATFORM}")
    if any(is_model_name(file.path) or is_raw_part(file.path) for file in repository.files):
        return None
    raise InputError(f"{repository.id}: no .rkllm and no GGUF; {there(repository, branches)}")


class ManyFiles(UsageError):
    """Several `.rkllm` files, one of which must be named. `files` has the best one first."""

    def __init__(self, repository: str, files: Sequence[Ranked], lines: Sequence[str]) -> None:
        best = files[0].file.path
        super().__init__(f"{repository}: {len(files)} .rkllm files for {PLATFORM}; choose one, best --file {best}")
        self.files = tuple(files)
        self.lines = tuple(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return ManyFiles, (self.args[0].partition(":")[0], self.files, self.lines)


def there(repository: Repository, branches: Sequence[str]) -> str:
    """Say what a repository has."""
    shown = ", ".join(file.path for file in repository.files[:8]) or "nothing"
    more = f" and {len(repository.files) - 8} more" if len(repository.files) > 8 else ""
    other = f"; branches: {', '.join(branches[:8])} (OWNER/NAME@BRANCH)" if branches else ""
    return f"it has {shown}{more}{other}"
