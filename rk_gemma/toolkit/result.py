"""The file that the toolkit wrote, held against what it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.toolkit.settings import PLATFORM
from rk_gemma_runtime.errors import BundleError, InputError
from rk_gemma_runtime.rkllmfile.describe import describe
from rk_gemma_runtime.rkllmfile.source import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma_runtime.memory.shape import Shape
    from rk_gemma_runtime.rkllmfile.describe import Description

# What the file does not say is not known; a value that nobody has documented is no contradiction.
UNKNOWN = "unknown code"


@dataclass(frozen=True)
class Wanted:
    """What the file must say where it says anything."""

    toolkit: str
    cores: int
    context: int
    dtype: str
    shape: Shape


def check_result(path: Path, wanted: Wanted, warn: Callable[[str], None]) -> int:
    """Read the file; return its limit of context. Raises BundleError for what it cannot be."""
    try:
        with FileSource(path) as source:
            found = describe(source)
    except InputError as error:
        raise BundleError(f"{path.name}: the toolkit returned 0 and wrote no such file: {error}") from error
    if not found.is_rkllm or found.whole == "no":
        what = found.kind.text if not found.is_rkllm else found.end
        raise BundleError(f"{path.name}: the toolkit returned 0, and this is not a whole .rkllm: {what}")
    odd = list(contradictions(found, wanted))
    if odd:
        raise BundleError(
            f"{path.name}: not what was asked for: {'; '.join(odd)}; use another release of the toolkit"
        )
    for note in found.notes:
        warn(f"{path.name}: {note}")
    return found.number("max_context") or wanted.context


def contradictions(found: Description, wanted: Wanted) -> Iterator[str]:
    """List in words what the file says otherwise."""
    asked: dict[str, str | int] = {"toolkit": wanted.toolkit, "platform": PLATFORM, "npu_cores": wanted.cores,
                                   "vocab": wanted.shape.vocab, "max_context": wanted.context}  # fmt: skip
    for name, value in asked.items():
        said = found.fields[name]
        if said is not None and UNKNOWN not in str(said.value) and str(said.value) != str(value):
            yield f"{name.replace('_', ' ')} is {said.value}, asked was {value}"
    if found.text("dtype") and UNKNOWN not in found.text("dtype"):
        if (found.text("dtype").lower() == "fp16") != (wanted.dtype == "fp16"):
            yield f"dtype is {found.text('dtype')}, asked was {wanted.dtype}"
    for name, size in found.shape.items():
        if size != getattr(wanted.shape, name):
            yield f"{name} is {size}, the model has {getattr(wanted.shape, name)}"
