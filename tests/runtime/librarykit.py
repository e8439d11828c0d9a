"""Libraries to identify: ELF files written by hand, compiled stand-ins, and changed copies of either."""

from __future__ import annotations

import ctypes
import platform
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rk_gemma_runtime.librkllm.abi import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EM = {"x86_64": 0x3E, "aarch64": 0xB7, "armv7l": 0x28, "i686": 3}
HERE = platform.machine()
ELSEWHERE = "x86_64" if HERE == "aarch64" else "aarch64"
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_STRSZ = 0, 1, 5, 6, 10
SDK = "RKLLM SDK (version: {} | target: Linux | build: test)"
# The defaults that the vendor documents; the tests' own list.
DEFAULTS = {
    "max_context_len": 512, "max_new_tokens": -1, "top_k": 40, "n_keep": -1, "top_p": 0.9, "temperature": 0.8,
    "repeat_penalty": 1.1, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "skip_special_token": True,
}  # fmt: skip
EXTENDED = {"embed_flash": 1, "enabled_cpus_num": 4, "enabled_cpus_mask": 0xF0, "n_batch": 1}


def elf(
    machine: str | int = HERE,
    bits: int = 64,
    exports: Iterable[str] = (),
    needed: Iterable[str] = (),
    kind: int = 3,
    tail: bytes = b"",
) -> bytes:
    """A shared object of headers and symbols only, without section headers; it can be read and not be run."""
    number = EM[machine] if isinstance(machine, str) else machine
    wide = bits == 64
    word, header, segment, symbol = (
        ("Q", "HHIQQQIHHHHHH", "IIQQQQQQ", "IBBHQQ") if wide else ("I", "HHIIIIIHHHHHH", "IIIIIIII", "IIIBBH")
    )
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in (*needed, *exports))
    at = {name: strings.index(b"\0" + name.encode() + b"\0") + 1 for name in (*needed, *exports)}
    head = 16 + struct.calcsize("<" + header)
    pairs = [(DT_NEEDED, at[name]) for name in needed]
    dynamic_at = head + 2 * struct.calcsize("<" + segment)
    table_at = dynamic_at + (len(pairs) + 4) * 2 * struct.calcsize("<" + word)
    table = bytes(struct.calcsize("<" + symbol))
    for name in exports:  # global functions in section 1
        fields = (at[name], 0x12, 0, 1, 0, 0) if wide else (at[name], 0, 0, 0x12, 0, 1)
        table += struct.pack("<" + symbol, *fields)
    strings_at = table_at + len(table)
    pairs += [(DT_STRTAB, strings_at), (DT_SYMTAB, table_at), (DT_STRSZ, len(strings)), (DT_NULL, 0)]
    dynamic = b"".join(struct.pack("<2" + word, *pair) for pair in pairs)
    size = strings_at + len(strings) + len(tail)

    def program(what: int, start: int, length: int) -> bytes:
        flags = (5, start, start, start, length, length, 8)
        mixed = (start, start, start, length, length, 5, 8)
        return struct.pack("<" + segment, what, *(flags if wide else mixed))

    sizes = (head, struct.calcsize("<" + segment), 2, 0, 0, 0)
    ehdr = struct.pack("<" + header, kind, number, 1, 0, head, 0, 0, *sizes)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    programs = program(PT_LOAD, 0, size) + program(PT_DYNAMIC, dynamic_at, len(dynamic))
    return ident + ehdr + programs + dynamic + table + strings + tail


def default_param(layout: str) -> Any:
    """RKLLMParam as the library fills it."""
    param = LAYOUTS[layout].structs["RKLLMParam"]()
    for target, values in ((param, DEFAULTS), (param.extend_param, EXTENDED)):
        for name, value in values.items():
            if hasattr(target, name):
                setattr(target, name, value)
    return param


def source(layout: str, version: str | None = None, without: Iterable[str] = (), more: str = "") -> str:
    """C of a library with this layout's functions and defaults, which cannot generate anything."""
    data = bytes(default_param(layout))
    names = [f for f in LAYOUTS[layout].functions if f not in {*without, "rkllm_createDefaultParam"}]
    text = SDK.format(version) if version else "nothing"
    create = "" if "rkllm_createDefaultParam" in without else (
        f"P rkllm_createDefaultParam(void) {{ static const P p = {{{{{','.join(map(str, data))}}}}}; return p; }}"
    )  # fmt: skip
    return "\n".join([
        f"typedef struct {{ unsigned char bytes[{ctypes.sizeof(LAYOUTS[layout].structs['RKLLMParam'])}]; }} P;",
        f'__attribute__((used)) const char text[] = "{text}";',
        create, *(f"int {name}(void) {{ return -1; }}" for name in names), more,
    ])  # fmt: skip


def compile_library(target: Path, code: str, *flags: str) -> Path:
    """Compile C to a shared object; skips where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler; install gcc")
    command = [compiler, "-shared", "-fPIC", "-O0", "-w", "-x", "c", "-", "-x", "none", "-o", str(target), *flags]
    subprocess.run(command, input=code, text=True, check=True)
    return target


def changed(source_path: Path, target: Path, old: bytes, new: bytes) -> Path:
    """A copy with every `old` replaced by `new` of the same length; there must be one."""
    data = source_path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    target.write_bytes(data.replace(old, new))
    return target


def renamed(source_path: Path, target: Path, old: str, new: str) -> Path:
    """A copy whose version string says another version."""
    stem = b"RKLLM SDK (version: "
    wide = max(len(old), len(new))
    return changed(
        source_path, target, stem + f"{old} |".encode(), stem + f"{new:<{wide}} |".encode()[: len(old) + 2]
    )
