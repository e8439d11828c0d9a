"""From what rkllm_createDefaultParam wrote to the layouts that it may belong to."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.librkllm.abi import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Known defaults; several where the board decides, or where 0 would say the same. They were read from some releases
# only, so the layout with the fewest surprises is taken, not one without any.
KNOWN: dict[str, tuple[float, ...]] = {
    "max_context_len": (512,),
    "max_new_tokens": (-1,),
    "top_k": (40,),
    "n_keep": (-1,),
    "top_p": (0.9,),
    "temperature": (0.8,),
    "repeat_penalty": (1.1,),
    "mirostat_tau": (5.0,),
    "mirostat_eta": (0.1,),
    "skip_special_token": (1,),
    "extend_param.embed_flash": (1,),
    "extend_param.enabled_cpus_num": (4,),
    "extend_param.enabled_cpus_mask": (0xF0, 0x0F),
    "extend_param.n_batch": (1, 0),
}
MOST_SURPRISES = 3


@dataclass(frozen=True)
class Image:
    """The struct as it was written: a byte, or None where nothing was. -1: it differed between the calls."""

    data: tuple[int | None, ...]
    bounded: bool = True
    """Whether it is known what was written. If not, some of `data` stood there before."""

    @property
    def extent(self) -> int | None:
        """Bytes up to the last one that was written."""
        return max((i for i, b in enumerate(self.data) if b is not None), default=-1) + 1 if self.bounded else None

    @classmethod
    def of(cls, runs: Sequence[tuple[int | None, bytes]]) -> Image:
        """(fill, bytes afterwards) of two runs over different fills, or of one over whatever was there."""
        if len(runs) == 1:
            return cls(tuple(runs[0][1]), bounded=False)
        (fill, data), (other_fill, other) = runs
        pairs = zip(data, other, strict=True)
        return cls(tuple(None if (a, b) == (fill, other_fill) else a if a == b else -1 for a, b in pairs))


def fitting(image: Image) -> tuple[str, ...]:
    """Find the layouts whose RKLLMParam this is, oldest first."""
    surprises = {name: _surprises(layout.structs["RKLLMParam"], image) for name, layout in LAYOUTS.items()}
    fewest = min(surprises.values())
    return tuple(n for n, count in surprises.items() if count == fewest) if fewest <= MOST_SURPRISES else ()


def _surprises(param: Any, image: Image) -> int:
    """Count known defaults that are elsewhere, and whether reserved bytes are in use."""
    if (image.extent or 0) > ctypes.sizeof(param):
        return MOST_SURPRISES + len(KNOWN)
    count = 0
    for name, offset, kind in _fields(param):
        found = image.data[offset : offset + ctypes.sizeof(kind)]
        if name.endswith("reserved"):
            count += any(found)
        elif name in KNOWN:
            count += found not in [tuple(bytes(kind(value))) for value in KNOWN[name]]
    return count


def _fields(struct: Any, prefix: str = "", base: int = 0) -> Iterator[tuple[str, int, Any]]:
    for name, kind, *_ in struct._fields_:
        offset = base + getattr(struct, name).offset
        if issubclass(kind, ctypes.Structure):
            yield from _fields(kind, f"{prefix}{name}.", offset)
        else:
            yield f"{prefix}{name}", offset, kind
