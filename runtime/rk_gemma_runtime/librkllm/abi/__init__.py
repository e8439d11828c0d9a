"""Layouts of librkllmrt, one module each, in the order of the vendor's header. Declarations only.

The numbers are measured facts (tests/abi holds every field against the tables). Each module declares what its release
changed and takes the rest from an earlier one. Which layout a library has is decided before the first call:
`identify.py`.
"""

from rk_gemma_runtime.librkllm.abi import v1_1_0, v1_2_0, v1_2_1, v1_2_1b1, v1_3_0, v1_3_1
from rk_gemma_runtime.librkllm.abi.layout import Layout

_OLDEST_FIRST = (v1_1_0, v1_2_0, v1_2_1b1, v1_2_1, v1_3_0, v1_3_1)
LAYOUTS: dict[str, Layout] = {module.LAYOUT.name: module.LAYOUT for module in _OLDEST_FIRST}

__all__ = ["LAYOUTS", "Layout"]
