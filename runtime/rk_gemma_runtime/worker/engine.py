"""Which engine a Load asks for. Imported late: each brings a large library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.engines.base import Engine
    from rk_gemma_runtime.wire import Load


def open_engine(load: Load) -> tuple[Engine, str, bool]:
    """The engine, the version of what is under it, and whether requests may have a sampling of their own. Blocks.
    Raises EngineError."""
    if load.kind == "npu":
        from rk_gemma_runtime.engines.npu import NpuEngine

        npu = NpuEngine.open(load.setup)
        return npu, npu.version, npu.sampling_per_run
    from rk_gemma_runtime.engines.cpu import CpuEngine

    return CpuEngine(load.setup), "llama.cpp", True
