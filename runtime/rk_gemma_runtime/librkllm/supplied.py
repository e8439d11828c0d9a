"""What the caller brings for a file that was exported without tokenizer or embedding (from 1.3.0)."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rk_gemma_runtime.librkllm.abi import Layout

    OnRaise = Callable[[BaseException], object]

log = logging.getLogger(__name__)
FAILED = -1


@dataclass(frozen=True)
class Supplied:
    """`tokenize(text)` gives ids; `embed(ids)` gives the table's rows, float32 [ids, hidden], unscaled. Both are
    called from the library's thread during a run; what they raise fails the run and is raised there."""

    tokenize: Callable[[bytes], Sequence[int]] | None = None
    embed: Callable[[Sequence[int]], NDArray[Any]] | None = None

    def slots(self, layout: Layout, on_raise: OnRaise) -> list[Slot]:
        """Make one for each callback that RKLLMCallback has beside the result's. Whoever takes them keeps them
        alive."""
        kinds = dict(layout.structs["RKLLMCallback"]._fields_)
        return [
            Slot("tokenizer_callback", kinds["tokenizer_callback"], self.tokenize, _tokens, on_raise),
            Slot("embed_callback", kinds["embed_callback"], self.embed, _rows, on_raise),
        ]


class Slot:
    """A field of RKLLMCallback: a null function where nothing is given. It outlives what was `given`, which may be
    large and is let go (None) with the session; the library then hears FAILED."""

    def __init__(self, field: str, kind: Any, given: Any, put: Callable[..., int], on_raise: OnRaise) -> None:
        self.field, self.given = field, given
        self._put, self._on_raise = put, on_raise
        self.function = kind(self._call) if given is not None else kind()

    def _call(self, userdata: object, *arguments: Any) -> int:
        given = self.given
        if given is None:
            return FAILED
        try:
            return self._put(given, *arguments)
        except BaseException as error:  # the edge to C
            log.debug("in %s", self.field, exc_info=True)
            self._on_raise(error)
            return FAILED


def _tokens(tokenize: Any, text: bytes | None, length: int, out: Any, most: int) -> int:
    ids = tokenize((text or b"")[:length])
    if len(ids) > most:
        raise ValueError(f"{len(ids)} ids for a text, the library has room for {most}")
    (ctypes.c_int32 * len(ids)).from_address(ctypes.addressof(out.contents))[:] = ids
    return len(ids)


def _rows(embed: Any, tokens: Any, count: int, out: int, length: int) -> int:
    import numpy as np

    found = np.ascontiguousarray(embed(tokens[:count]), np.float32)
    # Whether `length` counts bytes or floats is not documented.
    if len(found) != count or length not in {found.nbytes, found.size}:
        raise ValueError(f"rows of shape {found.shape} for {count} ids and a buffer of {length}")
    ctypes.memmove(out, found.ctypes.data, found.nbytes)
    return 0
