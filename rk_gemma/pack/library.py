"""Is the librkllmrt.so that is here new enough for a file of Rockchip's toolkit?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board.versions import version_key
from rk_gemma_runtime.errors import InputError, LibraryError
from rk_gemma_runtime.librkllm.identify import identify
from rk_gemma_runtime.librkllm.library import find

if TYPE_CHECKING:
    from rk_gemma_runtime.bundle import NpuPart


def check_library(label: str, part: NpuPart | None, force: bool) -> None:
    """Raise InputError if a library is found and older than the file's toolkit. A host has none, and that is well."""
    if part is None or not part.library or force:
        return
    try:
        path = find()
        version = identify(path, limit_s=0).version or ""
    except LibraryError:
        return
    if version and version_key(version) < version_key(part.toolkit):
        raise InputError(
            f"{label}: made by rkllm-toolkit {part.toolkit}, and {path} is librkllmrt {version}, which is older;"
            f" install librkllmrt {part.toolkit} or newer, or make the bundle for another board with --force"
        )
