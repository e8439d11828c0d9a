"""The text at the end of an `.rkllm`: `rkllm-toolkit version: X.Y.Z`.

Seen in files of toolkits 1.1.4 and 1.3.1; sizes of public files of 1.1.1, 1.2.1b1 and 1.3.0 fit it. Whether 1.0.x
wrote one is not known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.source import Source

REACH = 64
TAIL = 4096
_TEXT = re.compile(rb"rkllm-toolkit version: ([0-9]+\.[0-9]+\.[0-9]+(?:b[0-9]+)?)[\x00\r\n]{0,2}$")


def toolkit_of(source: Source) -> str:
    """Read the toolkit's version; empty if the file does not end with one."""
    end = source.read(max(0, source.size - REACH), REACH)
    found = _TEXT.search(end)
    return found[1].decode() if found else ""


def ends_in_zeros(source: Source) -> bool:
    """Whether the last 4 KiB are zeros: a download whose space was reserved and not filled."""
    return source.size > TAIL and not any(source.read(source.size - TAIL, TAIL))
