"""Which engine a Load asks for. Imported late: each brings a large library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.engines.base import Engine
    from rk_gemma_runtime.wire import Load

    OnReload = Callable[[str, bool], object]


def open_engine(load: Load, on_reload: OnReload) -> tuple[Engine, str]:
    """The engine and the version of what is under it. `on_reload(model file, begins)` is called before and after the
    model has to be loaded again. Blocks. Raises EngineError."""
    if load.kind == "npu":
        from rk_gemma_runtime.engines.npu import NpuEngine

        npu = NpuEngine.open(load.setup)
        npu.on_reload = on_reload
        return npu, npu.version
    from rk_gemma_runtime.engines.cpu import CpuEngine

    return CpuEngine(load.setup), "llama.cpp"
