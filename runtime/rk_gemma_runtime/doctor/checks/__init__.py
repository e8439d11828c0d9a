"""The checks: each a function from readings to findings, in the order in which they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.checks import (
    clocks,
    driver,
    engine,
    library,
    log,
    memory,
    node,
    probe,
    ram_clock,
    soc,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rk_gemma_runtime.doctor.findings import Finding
    from rk_gemma_runtime.doctor.readings import Readings

CHECKS: tuple[Callable[[Readings], Iterable[Finding]], ...] = (
    soc.check,
    node.check,
    driver.check,
    driver.check_iommu,
    node.check_users,
    probe.check,
    library.check,
    memory.check,
    memory.check_limits,
    engine.check,
    clocks.check,
    ram_clock.check,
    clocks.check_heat,
    log.check,
    unreadable.check,
)
