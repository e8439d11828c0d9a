"""The header of a GGUF file: its keys and where its tensors lie (the format: ggml's docs/gguf.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_KEYS, MOST_TENSORS, MOST_ITEMS, LONGEST = 10_000, 100_000, 2_000_000, 16 << 20
ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor:
    """`shape` as NumPy has it, rows first; `offset` from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """Keys by name, tensors by name."""

    keys: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path) -> GgufHeader:
    """Read a header. Raises CheckpointError for a file that is damaged or another one."""
    try:
        with path.open("rb") as file:
            return _Reader(file, path.stat().st_size).header()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, struct.error, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: a GGUF file that is not whole: {error}; download it again") from error


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def header(self) -> GgufHeader:
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("I")
        if version not in {2, 3}:
            raise ValueError(f"format version {version}, 2 and 3 are known")
        tensors, keys = self._count(MOST_TENSORS), self._count(MOST_KEYS)
        found = {self._text(): self._value(self._number("I")) for _ in range(keys)}
        places = [self._tensor() for _ in range(tensors)]
        step = int(found.get("general.alignment") or ALIGNMENT)
        if not 0 < step <= 1 << 20:
            raise ValueError(f"general.alignment {step}")
        start = -(-self._file.tell() // step) * step
        moved = [GgufTensor(t.name, t.shape, t.type, t.offset + start) for t in places]
        return GgufHeader(found, {tensor.name: tensor for tensor in moved})

    def _tensor(self) -> GgufTensor:
        name, dims = self._text(), self._number("I")
        if not 1 <= dims <= 4:
            raise ValueError(f"tensor {name} has {dims} dimensions")
        shape = tuple(reversed([self._number("Q") for _ in range(dims)]))
        return GgufTensor(name, shape, self._number("I"), self._number("Q"))

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            raise ValueError(f"a value of type {kind}")
        inner, count = self._number("I"), self._count(MOST_ITEMS)
        if inner in SCALARS:
            code = struct.Struct(f"<{count}{SCALARS[inner]}")
            return list(code.unpack(self._take(code.size)))
        if inner == ARRAY:
            raise ValueError("a list of lists")
        return [self._value(inner) for _ in range(count)]

    def _text(self) -> str:
        length = self._count(LONGEST)
        return self._take(length).decode("utf-8", errors="surrogateescape")

    def _count(self, most: int) -> int:
        number = int(self._number("Q"))
        if number > min(most, self._size):
            raise ValueError(f"a count of {number}")
        return number

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise ValueError("it ends inside its header")
        return data
