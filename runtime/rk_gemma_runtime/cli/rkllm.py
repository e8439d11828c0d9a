"""`rk-gemma inspect FILE`: what an `.rkllm` is and says, without the vendor's library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.printable import one_line
from rk_gemma_runtime.rkllmfile.describe import FIELDS, describe
from rk_gemma_runtime.rkllmfile.kinds import advice_for
from rk_gemma_runtime.rkllmfile.source import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rk_gemma_runtime.rkllmfile.describe import Description
    from rk_gemma_runtime.rkllmfile.source import Source

SAMPLE = 64  # bytes of head and tail in a report
ROW = 16
SHOWN = {"npu_cores": "npu cores", "max_context": "context", "vocab": "vocabulary"}


def inspect_file(path: Path, report: bool, as_json: bool) -> None:
    """Print what a file is. Raises InputError if it is not an `.rkllm`, or known not to be whole."""
    with FileSource(path) as source:
        found = describe(source)
        if as_json:
            print(json.dumps(found.tree() | ({"report": _report_tree(source, found)} if report else {})))
        elif report:
            print("\n".join(_report(source, found)))
        elif found.is_rkllm:
            print("\n".join(_lines(found)))
    if not found.is_rkllm:
        raise InputError(f"{path}: not an .rkllm: {found.kind.text}; {advice_for(found.kind)}")
    if found.whole == "no":
        raise InputError(f"{path}: not whole: {found.end}; download it again")


def _lines(found: Description) -> Iterator[str]:
    rows = {"file": found.name, "size": f"{found.bytes / 1e6:.1f} MB", "whole": f"{found.whole} ({found.end})"}
    for field in FIELDS:
        value = found.fields[field]
        rows[SHOWN.get(field, field)] = str(value) if value else "not known"
    for name, text in rows.items():
        yield one_line(f"{name:<13}{text}")
    yield from (one_line(f"{'note':<13}{note}") for note in found.notes)


def _samples(source: Source) -> tuple[bytes, bytes]:
    return source.read(0, SAMPLE), source.read(max(0, source.size - SAMPLE), SAMPLE)


def _report_tree(source: Source, found: Description) -> dict[str, object]:
    head, tail = _samples(source)
    keys = [{"name": r.name, "masked": r.masked, "type": r.type, "at": r.at, "value": r.shown} for r in found.rows]
    return {"head": head.hex(), "tail": tail.hex(), "keys": keys}


def _report(source: Source, found: Description) -> Iterator[str]:
    """What a bug report needs. Nothing of it tells more than which model the file holds."""
    head, tail = _samples(source)
    yield from (f"size   {found.bytes}", f"kind   {found.kind.name}", f"whole  {found.whole}")
    yield from (f"head   {line}" for line in _hex(head))
    yield from (f"tail   {line}" for line in _hex(tail))
    for row in found.rows:
        yield one_line(f"key    {row.name or row.masked} ({row.type}, at {row.at}): {row.shown}")


def _hex(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), ROW):
        part = data[at : at + ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{part.hex(' '):<{3 * ROW}} {text}"
