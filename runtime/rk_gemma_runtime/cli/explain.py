"""`rk-gemma explain [FILE|-]`: what a log of the NPU stack means, and what to do."""

from __future__ import annotations

import json
import sys
import textwrap
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.logs import dmesg, file_chunks, journal
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.printable import WIDTH, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.diagnosis import Diagnosis, Examination

LABEL = 12
NO_LOG = "no log given; name a file, pipe one in (`program 2>&1 | rk-gemma explain -`), or use --journal or --dmesg"
# How files begin that are something else, whatever words stand in them.
NOT_LOGS = (
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "a program or a library; `rk-gemma lib FILE` looks at librkllmrt.so"),
    (b"\x89PNG", "a picture; copy the text itself"),
    (b"\xff\xd8\xff", "a picture; copy the text itself"),
    (b"%PDF-", "a PDF; copy the text itself"),
    (b"PK\x03\x04", "a zip file; unpack it and give the log in it"),
    (b"SQLite format 3", "a database"),
    (b"RKNN", "an RKNN model"),
)
# How files begin that hold a log in another form, and how to get at it.
WRAPPED = (
    (b"\x1f\x8b", "compressed; run: zcat FILE | rk-gemma explain -"),
    (b"\xfd7zXZ", "compressed; run: xzcat FILE | rk-gemma explain -"),
    (b"\x28\xb5\x2f\xfd", "compressed; run: zstdcat FILE | rk-gemma explain -"),
    (b"BZh", "compressed; run: bzcat FILE | rk-gemma explain -"),
    (b"LPKSHHRH", "a journal; run: journalctl --file FILE | rk-gemma explain -"),
)


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("explain")(explain_command)


def explain_command(
    log: Annotated[str, typer.Argument(metavar="[FILE|-]", help="A log of any kind; - is standard input.")] = "",
    from_journal: Annotated[bool, typer.Option("--journal", help="Read the journal of this boot.")] = False,
    from_dmesg: Annotated[bool, typer.Option("--dmesg", help="Read the kernel log.")] = False,
    as_json: o.Json = False,
) -> None:
    """Say what a log of the NPU stack means, and what to do. Sources that are combined count as one log."""
    from rk_gemma_runtime.diagnosis import examine

    sources = []
    if log or not (from_journal or from_dmesg):
        sources.append(_open_log(log))
    sources += [source for asked, source in ((from_journal, journal()), (from_dmesg, dmesg())) if asked]
    head = bytearray()
    examination = examine(_keep_head(chain.from_iterable(sources), head))
    _refuse("standard input" if log == "-" else log or "the log", examination, bytes(head))
    if as_json:
        print(json.dumps(examination.diagnosis.tree()))
        return
    if hasattr(sys.stdout, "reconfigure"):  # a log may hold what the locale has no letters for
        sys.stdout.reconfigure(errors="backslashreplace")
    print("\n".join(_lines(examination.diagnosis)))


def _open_log(log: str) -> Iterator[bytes]:
    if not log and sys.stdin.isatty():
        raise UsageError(NO_LOG)
    return file_chunks(log if log != "-" else "")


def _keep_head(chunks: Iterator[bytes], head: bytearray) -> Iterator[bytes]:
    """Pass the chunks on and keep the first 16 bytes in `head`."""
    for chunk in chunks:
        head += chunk[: 16 - len(head)] if len(head) < 16 else b""
        yield chunk


def _refuse(name: str, examination: Examination, head: bytes) -> None:
    """Raise InputError if the input is not a log."""
    if examination.size == 0:
        raise InputError(f"{name}: empty; nothing was printed, or it went elsewhere (`2>&1` brings stderr)")
    other = next((what for beginning, what in NOT_LOGS if head.startswith(beginning)), "")
    if other or head[8:10] == b'{"':
        raise InputError(f"{name}: not a text log but {other or 'a safetensors file'}")
    if examination.known_lines and not (examination.binary and examination.diagnosis.first.cause == "other"):
        return
    for beginning, what in WRAPPED:
        if head.startswith(beginning):
            raise InputError(f"{name}: {what}")
    if examination.blank:
        raise InputError(f"{name}: only blanks")
    if examination.binary:
        raise InputError(f"{name}: not a text log (control characters, and no line that says anything)")


def _lines(diagnosis: Diagnosis) -> list[str]:
    first = diagnosis.first
    lines = [_row("cause", f"{first.cause}  ({first.confidence:.0%} sure)")]
    lines += _wrap("why", first.explanation)
    lines += [_row("line" if i == 0 else "", f"{e.line}: {e.text}") for i, e in enumerate(first.evidence)]
    lines += _wrap("do", first.remedy)
    facts = {k.replace("_", " "): v for k, v in diagnosis.facts.tree().items() if v not in (None, [])}
    if facts:
        lines += _wrap("facts", "; ".join(f"{name} {_show(value)}" for name, value in facts.items()))
    for i, other in enumerate(diagnosis.others):
        where = f", line {other.evidence[0].line}" if other.evidence else ""
        text = f"{other.cause} ({other.confidence:.0%}{where}): {other.explanation}"
        lines += _wrap("or" if i == 0 else "", text)
    return lines


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _wrap(label: str, text: str) -> list[str]:
    rows = textwrap.wrap(text, WIDTH - LABEL, break_long_words=False, break_on_hyphens=False)
    return [_row(label if i == 0 else "", row) for i, row in enumerate(rows)]


def _row(label: str, text: str) -> str:
    return one_line(f"{label:<{LABEL}}{text}".rstrip())
