"""What the loader says when it refuses a library, as a cause and something to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm.faults import fault

if TYPE_CHECKING:
    from pathlib import Path

# glibc's words, then musl's.
MISSING = re.compile(r"(?:^|: )([^/:\s]+): cannot open shared object file|Error loading shared library ([^:\s]+):")
VERSION = re.compile(r"version `([^']+)' not found")
SYMBOL = re.compile(r"undefined symbol: ([^\s,]+)|Error relocating [^:]+: (\S+): symbol not found")
# Debian's and Ubuntu's names.
PACKAGES = {
    "libgomp.so.1": "apt install libgomp1",
    "libstdc++.so.6": "apt install libstdc++6",
    "libgcc_s.so.1": "apt install libgcc-s1",
    "libomp.so.5": "apt install libomp5",
    # The package's file has another name than the library asks for.
    "libomp.so": "copy the libomp.so of Rockchip's archive beside it, or apt install libomp5 and link its libomp.so.5"
    " as libomp.so",
}


def explain(path: Path, message: str) -> LibraryError:
    """Make the error for what dlopen said of `path`."""
    missing, version, symbol = (_first(pattern, message) for pattern in (MISSING, VERSION, SYMBOL))
    if version.startswith("GLIBC_"):
        return fault(path, f"needs glibc {version[6:]}, which this system does not have", NpuReason.GLIBC_TOO_OLD)
    if version.startswith(("GLIBCXX_", "CXXABI_")):
        return fault(path, f"needs {version}, which this system's libstdc++ lacks", NpuReason.GLIBC_TOO_OLD)
    if missing:
        do = PACKAGES.get(missing, "install it, or copy it beside the library")
        return fault(path, f"needs {missing}, which is not here: {do}", NpuReason.MISSING_SHARED_LIBRARY)
    if symbol.startswith("rkllm_"):
        return fault(path, f"lists {symbol}, and the loader does not find it; copy it again")
    if symbol:
        return fault(path, f"cannot be loaded: no library that it needs has {symbol}; they do not fit together")
    return fault(path, f"cannot be loaded: {message.removeprefix(f'{path}: ')}")


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), "") if found else ""
