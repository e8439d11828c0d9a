"""The environment of a worker."""

from __future__ import annotations

import logging
import os

from rk_gemma_runtime import children

# Level 2 prints prompts and their ids (SDK manual 1.3.0, 3.3.3), and a dump writes what is made of them into files:
# what a person wrote is not for a log.
LOG_LEVEL, DUMP_LEVEL, KEEP = "RKLLM_LOG_LEVEL", "RKLLM_DUMP_LEVEL", "RK_GEMMA_LOG_PROMPTS"
QUIET = {"", "0", "1"}
log = logging.getLogger(__name__)


def worker_environment() -> dict[str, str]:
    """This process's, without what would put prompts into logs or files."""
    # C's stdout too, or what the library printed before it hung would be lost.
    given = {**children.environment(), "PYTHONUNBUFFERED": "1"}
    if os.environ.get(KEEP) == "1":
        return given
    level = given.get(LOG_LEVEL, "")
    if level not in QUIET:  # how the library reads a number with anything around it is not known
        log.warning("%s=%s would print prompts into logs: lowered to 1 (%s=1 keeps it)", LOG_LEVEL, level, KEEP)
        given[LOG_LEVEL] = "1"
    if given.pop(DUMP_LEVEL, "0") not in {"", "0"}:
        log.warning("%s would write prompts into files: removed (%s=1 keeps it)", DUMP_LEVEL, KEEP)
    return given
