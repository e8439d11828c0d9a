"""Weight types of the NPU: w8a8, w8a8_gN, and fp16 where nothing is quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from rk_gemma_runtime.memory.shape import Shape

GROUPS = {"w8a8": 0, "w8a8_g128": 128, "w8a8_g256": 256, "w8a8_g512": 512}
NAMES = (*GROUPS, "fp16")


@dataclass(frozen=True)
class Dtype:
    """`bytes` of a weight, `group` weights that share a scale (0: a whole row does)."""

    name: str
    bytes: int
    group: int


def dtype_of(name: str) -> Dtype:
    """Raises UsageError for a type that an RK3588 does not take."""
    word = name.lower()
    if word == "fp16":
        return Dtype(word, 2, 0)
    if word not in GROUPS:
        raise UsageError(f"dtype {name!r}: an RK3588 takes {', '.join(GROUPS)} (w4a16 is for RK3576 and RK3562)")
    return Dtype(word, 1, GROUPS[word])


def find_dtype(name: str, shape: Shape) -> Dtype | None:
    """Find the type that a file states; None if it is unknown or does not fit the model. The file may be right all
    the same: this table ends somewhere."""
    try:
        dtype = dtype_of(name)
        check(shape, dtype)
    except UsageError:
        return None
    return dtype


def fitting(shape: Shape) -> list[str]:
    """List the quantised types whose group divides every linear layer's inputs."""
    inputs = {linear.cols for linear in shape.layer()}
    return [name for name, group in GROUPS.items() if not group or all(size % group == 0 for size in inputs)]


def check(shape: Shape, dtype: Dtype) -> None:
    """Raise UsageError if the group does not divide the linear layers."""
    if dtype.group and dtype.name not in fitting(shape):
        odd = next(linear for linear in shape.layer() if linear.cols % dtype.group)
        raise UsageError(
            f"{shape.name}: {dtype.name} does not fit: the {odd.cols} inputs of {odd.name} do not divide into groups"
            f" of {dtype.group}; choose {' or '.join(fitting(shape))}"
        )
