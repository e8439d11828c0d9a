"""Finding librkllmrt.so and loading it once it is known which one it is.

Search order: an explicit path; RK_GEMMA_LIBRKLLMRT; LD_LIBRARY_PATH; /usr/lib; /usr/local/lib; the loader's cache. A
path that was given explicitly is the only one tried: falling through to another library would hide the mistake.
RK_GEMMA_LIBRKLLMRT_LAYOUT names a layout for a library that is not recognised.
"""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.callbacks import Callbacks
from rk_gemma_runtime.librkllm.faults import NAME, obstacle, open_file, read_library
from rk_gemma_runtime.librkllm.identify import Identity, identify
from rk_gemma_runtime.librkllm.loader import explain
from rk_gemma_runtime.librkllm.probe import open_shared
from rk_gemma_runtime.librkllm.verdict import VARIABLE as LAYOUT_VARIABLE

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator

    from rk_gemma_runtime.librkllm.abi import Layout

VARIABLE = "RK_GEMMA_LIBRKLLMRT"
DIRECTORIES = ("/usr/lib", "/usr/local/lib")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """A loaded library with typed functions. Unloading is not supported by the vendor: it lives with the process.
    `version` is the layout's name where the file does not say one. What `identity.missing` lists, `cdll` lacks."""

    path: Path
    version: str
    layout: Layout
    cdll: ctypes.CDLL
    identity: Identity
    callbacks: Callbacks = field(compare=False, repr=False)

    @property
    def functions(self) -> frozenset[str]:
        """Functions of the layout that this file has."""
        return frozenset(self.layout.functions) - set(self.identity.missing)


def find(explicit: str | None = None) -> Path:
    """Find the library to load. Raises LibraryError that lists every path tried and why it was passed over."""
    given = explicit or os.environ.get(VARIABLE)
    if given:
        _check(Path(given))
        return Path(given)
    tried = []
    for path in dict.fromkeys(_candidates()):
        try:
            _check(path)
        except LibraryError as error:
            tried.append(str(error))
        else:
            return path
    raise LibraryError(f"no usable {NAME}; tried {'; '.join(tried)}", NpuReason.NO_LIBRARY)


def load(path: Path, layout: str | None = None) -> Library:
    """Identify and load; `layout`, or else the environment, forces one. Blocks while the library is tried in a
    process of its own. Raises LibraryError before any call is made here if it cannot be used."""
    identity = identify(path, layout or layout_from_environment())
    if identity.problem is not None:
        raise identity.problem
    assert identity.layout is not None
    chosen = LAYOUTS[identity.layout]
    _say(identity)
    try:
        cdll = open_shared(str(path))
    except OSError as error:
        raise explain(path, str(error)) from error
    library = Library(path, identity.version or chosen.name, chosen, cdll, identity, Callbacks(chosen))
    for symbol in library.functions:
        function = getattr(cdll, symbol)
        function.restype, function.argtypes = chosen.functions[symbol]
    return library


def layout_from_environment() -> str | None:
    """Return the layout that the environment forces, or None."""
    return os.environ.get(LAYOUT_VARIABLE) or None


def _say(identity: Identity) -> None:
    if identity.forced:
        doubts = "; ".join(identity.notes) or "nothing speaks against it"
        log.warning("%s: layout %s because it was asked for: %s", identity.path, identity.layout, doubts)
    elif "string" not in identity.identified_by:
        by = ", ".join(identity.identified_by)
        log.warning("%s: names no version; layout %s by its %s", identity.path, identity.layout, by)
    if identity.missing:
        log.warning("%s: lacks %s", identity.path, ", ".join(identity.missing))


def _check(path: Path) -> None:
    """Raise LibraryError if the file is not a library for this machine."""
    with open_file(path) as file:
        problem = obstacle(path, read_library(path, file))
    if problem is not None:
        raise problem


def _candidates() -> Iterator[Path]:
    for directory in (*_loader_directories(), *DIRECTORIES):
        yield Path(directory) / NAME
    yield from _search_cache()


def _loader_directories() -> list[str]:
    """List the directories of LD_LIBRARY_PATH. An empty part would be the working directory; it is left out."""
    return [part for part in os.environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":") if part]


def _search_cache() -> Iterator[Path]:
    try:
        listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return
    for line in listing.splitlines():
        if line.strip().startswith(NAME) and "=>" in line:
            yield Path(line.split("=>", 1)[1].strip())
