"""Running a command inside the arm64 tree: in namespaces where the kernel allows, else under proot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import namespace
import proot
from job import Failed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from job import Job

MECHANISM_VARIABLE = "RK_GEMMA_EMULATION"
MECHANISMS: dict[str, Callable[[Job], int]] = {"namespace": namespace.run, "proot": proot.run}


def run(job: Job) -> int:
    """The exit status of JOB, entered by the first mechanism that works, or by the one asked for."""
    wanted = os.environ.get(MECHANISM_VARIABLE)
    if wanted and wanted not in MECHANISMS:
        raise Failed(f"{MECHANISM_VARIABLE} must be one of {', '.join(MECHANISMS)}, not {wanted}")
    refusals = []
    for name in [wanted] if wanted else MECHANISMS:
        try:
            return MECHANISMS[name](job)
        except Unavailable as refusal:
            refusals.append(str(refusal))
    raise Unavailable("; ".join(refusals))
