"""What an ELF file says about itself, read without loading it.

Everything is taken from where the loader takes it, the dynamic segment, so a file without section headers is as good
as any. The file may be anything: each table is bounded before it is read.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# As platform.machine() has them, where that is not the ELF name in small letters.
MACHINES = {"EM_ARM": "armv7l", "EM_386": "i686", "EM_RISCV": "riscv64"}
KINDS = {"ET_REL": "a relocatable object", "ET_EXEC": "a program", "ET_CORE": "a core dump"}
HEADERS = {1: "HHIIIIIHHHHHH", 2: "HHIQQQIHHHHHH"}  # behind e_ident, by its class
DF_1_PIE = 0x08000000
MOST_HEADERS, MOST_TAGS, MOST_VERSIONS = 1024, 512, 64
SYMBOLS = 4 << 20  # bytes of the symbol table that are looked at
PREFIX = b"rk"  # of librkllmrt's and librknnrt's functions
# What the parser is known to raise on broken files, beside its own.
PARSER = (
    ELFError, ConstructError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError,
    ValueError, struct.error,
)  # fmt: skip


class BadElf(Exception):
    """Why a file is not a shared object, in a few words."""


@dataclass(frozen=True)
class Elf:
    """`exports`: defined dynamic symbols of Rockchip's libraries. `versions`: (library, version) pairs of symbol
    versions that the loader must find."""

    machine: str
    bits: int
    needed: tuple[str, ...]
    exports: frozenset[str]
    versions: tuple[tuple[str, str], ...]


def read_elf(file: BinaryIO, size: int) -> Elf:
    """Read a shared object of `size` bytes. Raises BadElf, and OSError from the file."""
    try:
        _check_tables(file, size)
        elf = ELFFile(file)
        _check_end(max((x["p_offset"] + x["p_filesz"] for x in elf.iter_segments("PT_LOAD")), default=0), size)
        kind = elf["e_type"]
        if kind != "ET_DYN":
            raise BadElf(f"{KINDS.get(kind, 'an ELF file of another kind')}, not a shared library")
        segment, tags = _dynamic(elf)
        if any(t["d_tag"] == "DT_FLAGS_1" and t["d_val"] & DF_1_PIE for t in tags):
            raise BadElf(f"{KINDS['ET_EXEC']}, not a shared library")
        needed = tuple(t.needed for t in tags if t["d_tag"] == "DT_NEEDED")
        return Elf(_machine(elf), elf.elfclass, needed, _exports(elf, segment, tags), tuple(_versions(elf)))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise BadElf("a damaged ELF file (it points to nowhere)") from error
    except PARSER as error:
        raise BadElf(f"a damaged ELF file ({str(error)[:80] or type(error).__name__})") from error


def _machine(elf: Any) -> str:
    machine = elf["e_machine"]
    return MACHINES.get(machine) or str(machine).removeprefix("EM_").lower()


def _check_tables(file: BinaryIO, size: int) -> None:
    """Check, before the parser follows them, that both tables of headers are inside the file and of a sane length."""
    file.seek(0)
    ident = file.read(16)
    header = struct.Struct(("<" if ident[5] == 1 else ">") + HEADERS[ident[4]])
    values = header.unpack(file.read(header.size))
    # (offset, size of an entry, entries) of segments and sections
    tables = (values[4], *values[8:10]), (values[5], *values[10:12])
    if any(count > MOST_HEADERS for _, _, count in tables):
        raise BadElf("a damaged ELF file (too many headers)")
    _check_end(max(offset + entry * count for offset, entry, count in tables), size)


def _check_end(end: int, size: int) -> None:
    if end > size:
        raise BadElf(f"cut off: it has {size} bytes and its headers speak of {end}; copy it again")


def _dynamic(elf: Any) -> tuple[Any, list[Any]]:
    segment = next(elf.iter_segments("PT_DYNAMIC"), None)
    if segment is None:
        raise BadElf("a static program or data: it has no dynamic segment")
    tags = list(islice(segment.iter_tags(), MOST_TAGS))
    if tags[-1]["d_tag"] != "DT_NULL":
        raise BadElf("a damaged ELF file (its dynamic segment has no end)")
    return segment, tags


def _exports(elf: Any, segment: Any, tags: list[Any]) -> frozenset[str]:
    """Read the exported names. The table of symbols ends where the next table begins: no header says how long it
    is."""
    values = {t["d_tag"]: t["d_val"] for t in tags}
    _, start = segment.get_table_offset("DT_SYMTAB")
    _, text = segment.get_table_offset("DT_STRTAB")
    if start is None or text is None:
        return frozenset()
    later = [v - values["DT_SYMTAB"] for t, v in values.items() if v > values["DT_SYMTAB"] and _is_table(t)]
    strings = _bytes(elf, text, min(values.get("DT_STRSZ", 0), SYMBOLS))
    return frozenset(_names(elf, _bytes(elf, start, min([SYMBOLS, *later])), strings))


def _is_table(tag: object) -> bool:
    return tag in {
        "DT_STRTAB", "DT_GNU_HASH", "DT_HASH", "DT_VERSYM", "DT_VERNEED", "DT_VERDEF", "DT_RELA", "DT_REL", "DT_RELR",
        "DT_JMPREL", "DT_INIT", "DT_FINI", "DT_INIT_ARRAY", "DT_FINI_ARRAY", "DT_PLTGOT",
    }  # fmt: skip


def _bytes(elf: Any, offset: int, length: int) -> bytes:
    elf.stream.seek(offset)
    data: bytes = elf.stream.read(length)
    return data


def _names(elf: Any, table: bytes, strings: bytes) -> Iterator[str]:
    """Collect defined global symbols that begin with PREFIX."""
    order = "<" if elf.little_endian else ">"
    wide = elf.elfclass == 64
    entry = struct.Struct(order + ("IBBHQQ" if wide else "IIIBBH"))
    name_at, info_at, section_at = (0, 1, 3) if wide else (0, 3, 5)
    for symbol in entry.iter_unpack(table[: len(table) // entry.size * entry.size]):
        name = symbol[name_at]
        if name >= len(strings):  # behind the table
            return
        if strings.startswith(PREFIX, name) and symbol[section_at] != 0 and symbol[info_at] >> 4 in (1, 2):
            yield strings[name : strings.index(b"\0", name)].decode()


def _versions(elf: Any) -> Iterator[tuple[str, str]]:
    for section in elf.iter_sections("SHT_GNU_verneed"):
        for version, needs in islice(section.iter_versions(), MOST_VERSIONS):
            for need in islice(needs, MOST_VERSIONS):
                yield section.stringtable.get_string(version["vn_file"]), need.name
