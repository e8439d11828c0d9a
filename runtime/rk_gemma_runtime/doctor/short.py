"""The one check that run and chat make of the CPU: is there RAM for its weights?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.board import live
from rk_gemma_runtime.memory.plan import cpu_bytes

if TYPE_CHECKING:
    from rk_gemma_runtime.bundle import Bundle

MIB = 1 << 20


def cpu_is_short(bundle: Bundle) -> str:
    """Say that the CPU weights are larger than the memory that this process may use, or ""."""
    memory, need = live.own_memory(), cpu_bytes(bundle)
    if memory.available is None or need <= memory.available:
        return ""
    group = "" if memory.limit is None else f" (a control group allows {memory.limit // MIB} MiB in all)"
    there = f"{memory.available // MIB} MiB are available{group}"
    return f"the CPU weights take {need // MIB} MiB and {there}: expect it to be very slow"
