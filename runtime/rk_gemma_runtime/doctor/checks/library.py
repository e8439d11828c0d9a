"""librkllmrt.so: is there one, which is it, and can it be loaded?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import ERROR, NOTE, NPU, OK, Finding
from rk_gemma_runtime.errors import REMEDIES, NpuReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

CAUSES = {
    NpuReason.NO_LIBRARY.value: "missing_shared_library",
    NpuReason.MISSING_SHARED_LIBRARY.value: "missing_shared_library",
    NpuReason.GLIBC_TOO_OLD.value: "glibc_too_old",
}


def check(r: Readings) -> Iterator[Finding]:
    """Check the library: one finding, or two if functions are missing."""
    library = r.library
    if library is None:
        title = "no librkllmrt.so was looked for: what was given holds no programs"
        yield Finding("library", NOTE, title, (), "on the board: rk-gemma lib")
        return
    if library.problem:
        remedy = REMEDIES[NpuReason(library.reason)] if library.reason in set(NpuReason) else ""
        cause = CAUSES.get(library.reason, "")
        title = "librkllmrt.so was not found" if not library.path else "librkllmrt.so cannot be used"
        yield Finding("library", ERROR, title, (library.problem,), remedy, cause, (NPU,))
        return
    evidence = (f"{library.path}: layout {library.layout}, {library.machine}",)
    if library.machine and r.soc.machine and library.machine != r.soc.machine:
        title = f"librkllmrt.so is for {library.machine}, this is {r.soc.machine}"
        yield Finding("library", ERROR, title, evidence, REMEDIES[NpuReason.BAD_LIBRARY], "", (NPU,))
        return
    how = "" if library.tried else "; read, not tried"
    yield Finding("library", OK, f"librkllmrt {library.version or 'of unknown version'}{how}", evidence)
    if library.missing:
        title = f"librkllmrt.so lacks {', '.join(library.missing)}"
        yield Finding("library_functions", NOTE, title, evidence, "use an unmodified release")
