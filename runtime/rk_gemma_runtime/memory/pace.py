"""What a board's clocks make of a predicted speed.

Decoding waits for RAM. The one measurement there is: Qwen3-1.7B in w8a8 with RAM at 528 and at 2112 MHz, 5.5 and 11.2
tokens/s, prompts at 97 and 134.7 (oRKLLM/ork-driver). A time of the form a + b / clock goes through both points.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.board.facts import Board, Clock, Clocks
    from rk_gemma_runtime.memory.speed import Speed

MHZ = 10**6
RAM_HZ = 2112 * MHZ  # the highest on an RK3588, where the kernel does not say
LOW, HIGH = 528, 2112
# Share of the time that follows the clock of RAM, from the measurement above.
DECODE_SHARE = (11.2 / 5.5 - 1) / (HIGH / LOW - 1)
PROMPT_SHARE = (134.7 / 97 - 1) / (HIGH / LOW - 1)
COST = "528 against 2112 MHz was 5.5 against 11.2 tokens/s (oRKLLM/ork-driver)"
NO_DMC = "the kernel has no dmc node: RAM stays at the boot firmware's clock, at 528 MHz decoding takes twice as long"


def ratio(clock: Clock | None, most: int = 0) -> float:
    """How many times lower than its highest a clock is; 1 where that is not known."""
    if clock is None or not clock.now:
        return 1.0
    return max(1.0, (clock.most or most) / clock.now)


def at_clocks(speed: Speed, clocks: Clocks) -> Speed:
    """Predict the speed at the clocks as they are now."""
    ram = ratio(clocks.ddr, RAM_HZ) - 1
    npu = ratio(clocks.npu) if _held(clocks) else 1.0
    prompt = (1 + PROMPT_SHARE * ram) * npu
    return replace(
        speed,
        decode=speed.decode / (1 + DECODE_SHARE * ram),
        prefill=speed.prefill / prompt,
        ttft_s=speed.ttft_s * prompt,
    )


def notes(board: Board) -> list[str]:
    """Say what keeps this board from the speed of pinned clocks."""
    clocks, found = board.clocks, []
    if clocks.throttled:
        found.append("heat: the kernel has lowered clocks")
    if ratio(clocks.ddr, RAM_HZ) > 1 and clocks.ddr:
        found.append(f"RAM runs at {_mhz(clocks.ddr.now)} of {_mhz(clocks.ddr.most or RAM_HZ)} MHz")
    elif clocks.ddr is None and clocks.known:
        found.append(NO_DMC)
    if _held(clocks) and clocks.npu and ratio(clocks.npu) > 1:
        found.append(f"the NPU runs at {_mhz(clocks.npu.now)} of {_mhz(clocks.npu.most)} MHz")
    return found


def _held(clocks: Clocks) -> bool:
    """Whether the NPU's clock stays where it is: by itself it follows the load."""
    governor = clocks.npu.governor if clocks.npu else None
    return clocks.throttled or "ondemand" not in (governor or "")


def _mhz(hertz: int | None) -> int:
    return (hertz or 0) // MHZ
