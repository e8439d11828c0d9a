"""Which librkllmrt runs the files of which rkllm-toolkit, by their versions alone."""

from __future__ import annotations

from rk_gemma_runtime.board.versions import release_of, version_key
from rk_gemma_runtime.memory.reasons import Reason

FIRST = (1, 1, 0)
UPDATE = "update_rkllm of rkllm-toolkit 1.1.4 or newer turns a file of 1.0.2 into one, or convert the model again"
# Seen by one reporter: the file's end ids are of a type that this release does not read; the next one does.
LOSES_EOS = (1, 3, 0)
LAST_LOST = (1, 2, 3)


def needed_library(toolkit: str) -> str:
    """Say which library a file needs, in words; empty where the toolkit is not known or no library reads it."""
    return f"librkllmrt >= {toolkit}" if release_of(toolkit) >= FIRST else ""


def newest(*toolkits: str) -> str:
    """Choose the newest version, empty if none is one."""
    return max(toolkits, key=version_key, default="")


def check_toolkit(toolkit: str, runtime: str = "") -> list[Reason]:
    """Hold a file's toolkit against the library; versions that are not known are not judged. A beta counts as its
    release: nobody has reported a difference."""
    made, runs = release_of(toolkit), release_of(runtime)
    if made and made < FIRST:
        text = f"the weights were made by rkllm-toolkit {toolkit}, which no librkllmrt from 1.1.0 on reads"
        return [Reason("model_version_mismatch", text, True)]
    if made and runs and made > runs:
        text = f"rkllm-toolkit {toolkit} made the weights, and librkllmrt {runtime} is older than that"
        return [Reason("model_version_mismatch", text, True)]
    return []


def loses_eos(toolkit: str, runtime: str) -> bool:
    """Whether the library does not see the file's end ids."""
    return FIRST <= release_of(toolkit) <= LAST_LOST and release_of(runtime) == LOSES_EOS


def eos_note(toolkit: str, runtime: str) -> str:
    """Say what that means here; empty where it does not happen."""
    if not loses_eos(toolkit, runtime):
        return ""
    return (
        f"librkllmrt {runtime} does not see the end ids in files of rkllm-toolkit {toolkit};"
        " answers end at the bundle's own all the same"
    )
