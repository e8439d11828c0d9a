"""Layouts of librkllmrt, one module each, in the order of the vendor's header. Declarations only.

The numbers are measured facts (tests/abi holds every field against the tables). Which layout a library has is
decided before the first call: `library.py`.
"""

from rk_gemma_runtime.librkllm.abi import v1_1_0, v1_3_0
from rk_gemma_runtime.librkllm.abi.layout import Layout

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (v1_1_0.LAYOUT, v1_3_0.LAYOUT)}

__all__ = ["LAYOUTS", "Layout"]
