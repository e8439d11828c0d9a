"""The clock of RAM, for which decoding waits: is it high, does it stay, and can it be set at all?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.findings import NOTE, OK, WARNING, Finding
from rk_gemma_runtime.memory.pace import COST, MHZ, RAM_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readers.clocks import Clock
    from rk_gemma_runtime.doctor.readings import Readings

DMC = "/sys/class/devfreq/dmc"
WHY = f"decoding waits for RAM: {COST}"
FIRMWARE = (
    "flash the board's newest boot firmware (U-Boot with Rockchip's BL31) and boot the vendor's kernel;"
    " ls /sys/class/devfreq shows dmc then"
)
NO_CALL = "this boot firmware has no call for it (ATF version 0x0)"


def check(r: Readings) -> Iterator[Finding]:
    """Check the dmc node; without one nobody can raise the clock that the boot firmware has set."""
    if r.clocks.ddr is not None:
        yield _judge(r.clocks.ddr)
    elif r.npu.version:
        seen = [f"{DMC}: not there", *r.log.firmware, *([NO_CALL] if r.log.no_call else []), WHY]
        title = "the clock of RAM cannot be seen or set: this kernel has no dmc node"
        yield Finding("ddr_clock", WARNING, title, tuple(seen), FIRMWARE)


def _judge(clock: Clock) -> Finding:
    if clock.current is None:
        return Finding("ddr_clock", NOTE, "the clock of RAM cannot be read", (clock.path,))
    most = clock.most or RAM_HZ
    evidence = (f"{clock.path}: {clock.governor}, {clock.current // MHZ} of {most // MHZ} MHz",)
    command = f"echo performance | sudo tee {clock.path}/governor"
    lazy = "ondemand" in (clock.governor or "")
    if clock.current < most:
        if clock.governor == "performance":  # heat or a limit holds it down
            command = f"echo {most} | sudo tee {clock.path}/max_freq"
        more = (f"{clock.governor} does not raise it for these loads",) if lazy else ()
        return Finding("ddr_clock", WARNING, "RAM is not at its highest clock", (*evidence, *more, WHY), command)
    if lazy:
        title = f"RAM is at its highest clock now, and {clock.governor} may lower it for good"
        return Finding("ddr_clock", NOTE, title, (*evidence, WHY), command)
    return Finding("ddr_clock", OK, "RAM is at its highest clock", evidence)
