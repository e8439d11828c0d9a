"""The outer layer of an `.rkllm`: GGUF 3 with masked strings. Walks it without knowing the mask; a plain GGUF of
version 2 or 3 is walked the same.

Only lengths, counts and types are used, which are plain. Weights are not read, and offsets of tensors are not
believed: those of NPU matrices are not where their data are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma_runtime.rkllmfile.cursor import Beyond, Cursor, Spent

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.source import Source

VERSIONS = (2, 3)  # alike; an .rkllm has 3
START = 24  # magic, version and two counts
MOST_KEYS, MOST_TENSORS, MOST_STRINGS, MOST_DIMS = 4096, 1 << 16, 1 << 21, 8
LONGEST_NAME = 1 << 16
BUDGET = 64 << 20  # bytes read for a head; a vocabulary of 256,000 takes 5 MB
PERIOD = 256  # of the mask: what is longer tells nothing new, and is not kept
BOOL, STRING, ARRAY = 7, 8, 9
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
NUMBERS = {kind: struct.Struct(f"<{code}") for kind, code in _CODES.items()}
TYPE_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")


class Malformed(Exception):
    """Something that this layout cannot hold."""


@dataclass(frozen=True)
class Entry:
    """A key and what stands behind it: a number, or where a string or an array lies. `key` is masked. `length`: bytes
    of a string, elements of an array. `longest`: place and length of an array's longest string."""

    key: bytes
    type: int
    at: int
    number: int | float | bool | None = None
    length: int = 0
    of: int = -1
    longest: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Tensor:
    """A row of the directory. `name` is masked; `dims` as in the file: the innermost first. `offset` from the end of
    the directory; in an `.rkllm` it may not be where the data are."""

    name: bytes
    dims: tuple[int, ...]
    type: int
    offset: int


@dataclass
class Outline:
    """What a walk has found. `end` is where it stopped; `fault` says what ended it early, `cut` that the file ends
    before it."""

    magic: bytes
    tensor_count: int
    key_count: int
    entries: list[Entry] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    fault: str = ""
    cut: bool = False
    end: int = START


def outline(source: Source) -> Outline | None:
    """Walk the head of a file. None if it does not begin as an `.rkllm` or a GGUF does."""
    head = source.read(0, START)
    if len(head) < START or int.from_bytes(head[4:8], "little") not in VERSIONS:
        return None
    tensors, keys = struct.unpack_from("<QQ", head, 8)
    found = Outline(head[:4], tensors, keys)
    if keys > MOST_KEYS or tensors > MOST_TENSORS:
        found.fault = f"{keys} keys and {tensors} tensors, more than any model has"
        return found
    cursor = Cursor(source, START, BUDGET)
    try:
        strings = MOST_STRINGS
        for _ in range(keys):
            entry, strings = _entry(cursor, strings)
            found.entries.append(entry)
        for _ in range(tensors):
            found.tensors.append(_tensor(cursor))
    except Beyond as error:
        found.fault, found.cut = str(error), True
    except (Malformed, Spent) as error:
        found.fault = str(error)
    found.end = cursor.at
    return found


def _name(cursor: Cursor, what: str) -> bytes:
    at, length = cursor.at, cursor.length(what)
    if not 0 < length <= LONGEST_NAME:
        raise Malformed(f"{what} of {length} bytes at byte {at}")
    return cursor.take(length, what)[:PERIOD]


def _kind(cursor: Cursor, what: str) -> int:
    kind = int(cursor.number(NUMBERS[4], what))
    if kind >= len(TYPE_NAMES):
        raise Malformed(f"unknown type {kind} before byte {cursor.at}")
    return kind


def _entry(cursor: Cursor, strings: int) -> tuple[Entry, int]:
    """Read one; with how many strings are still allowed."""
    key = _name(cursor, "a key")
    kind = _kind(cursor, "a value")
    if kind == STRING:
        length = cursor.length("a string")
        at = cursor.at
        cursor.skip(length, "a string")
        return Entry(key, kind, at, length=length), strings
    if kind == ARRAY:
        return _array(cursor, key, strings)
    at = cursor.at
    return Entry(key, kind, at, cursor.number(NUMBERS[kind], "a value")), strings


def _array(cursor: Cursor, key: bytes, strings: int) -> tuple[Entry, int]:
    of = _kind(cursor, "an array")
    count = cursor.length("an array")
    at = cursor.at
    if of == ARRAY:
        raise Malformed(f"an array of arrays at byte {at}")
    if of != STRING:
        cursor.skip(count * NUMBERS[of].size, "an array")
        return Entry(key, ARRAY, at, length=count, of=of), strings
    if count > strings:
        raise Malformed(f"an array of {count} strings at byte {at}, more than any vocabulary has")
    longest = cursor.skip_strings(count, "an array of strings")
    return Entry(key, ARRAY, at, length=count, of=of, longest=longest), strings - count


def _tensor(cursor: Cursor) -> Tensor:
    name = _name(cursor, "a tensor's name")
    count = int(cursor.number(NUMBERS[4], "a tensor"))
    if not 0 < count <= MOST_DIMS:
        raise Malformed(f"a tensor of {count} dimensions before byte {cursor.at}")
    dims = tuple(cursor.length("a tensor") for _ in range(count))
    kind = int(cursor.number(NUMBERS[4], "a tensor"))
    return Tensor(name, dims, kind, cursor.length("a tensor"))
