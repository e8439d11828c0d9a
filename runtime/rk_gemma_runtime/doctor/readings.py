"""Everything that was read of a board, and the board as the memory model wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.facts import DOMAIN_BYTES, UNKNOWN, Board, Hold, Limits, Npu
from rk_gemma_runtime.doctor.reader import Reader
from rk_gemma_runtime.doctor.readers import clocks, cpu, described, library, log, memory, npu, probed, soc

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.readers.memory import LimitsReading, MemoryReading
    from rk_gemma_runtime.doctor.root import Root, Unreadable
    from rk_gemma_runtime.driver import ask

PAGE = 4096
# Less than this missing from a domain is fragments and tables, not another program.
NOISE_BYTES = 64 << 20


@dataclass(frozen=True)
class Readings:
    """`live`: read from the system this runs on. `unreadable`: what could not be read, in the order of asking."""

    soc: soc.Soc
    npu: npu.NpuReading
    memory: MemoryReading
    limits: LimitsReading
    cpu: cpu.CpuReading
    clocks: clocks.ClocksReading
    log: log.LogReading
    library: library.LibraryReading | None
    probe: ask.Result | None
    described: described.Described
    unreadable: tuple[Unreadable, ...]
    live: bool

    @property
    def iommu(self) -> bool | None:
        """Whether the NPU's IOMMU is on: by the driver, else by its line at boot, else by sysfs."""
        for said in (self.npu.iommu_ioctl, self.log.iommu, self.npu.iommu_sysfs):
            if said is not None:
                return said
        return None

    @property
    def driver(self) -> str | None:
        """The driver's version, "" where there is no driver."""
        return self.log.version or None if self.npu.version is None else self.npu.version

    @property
    def contiguous(self) -> bool:
        """Whether the driver is its DMA-heap build, whose buffers are contiguous with an IOMMU too."""
        return self.npu.node is not None and self.npu.node.kind == "misc"

    @property
    def masked(self) -> bool:
        """Whether a container hides the device tree, so that librkllmrt cannot tell the platform."""
        hidden = self.soc.compatible is None and bool(self.soc.container)
        return hidden and (bool(self.npu.version) or self.soc.machine in {None, "aarch64"})

    @property
    def platform(self) -> str | None:
        """What librkllmrt will make of the device tree; None where that is not known."""
        compatible = self.soc.compatible
        if self.masked or (not self.npu.version if compatible is None else self.soc.platform is None):
            return UNKNOWN
        return self.soc.platform

    def board(self) -> Board:
        """Make the board for the memory model: what is not known stays None."""
        return Board(
            title=self.soc.model or "",
            soc=self.soc.chip,
            npu=self._npu(),
            memory=self.memory.board(),
            limits=Limits(self.limits.soft, self.limits.hard),
            clocks=self.clocks.board(),
        )

    def _npu(self) -> Npu:
        node, probe, told = self.npu.node, self.probe, self.described
        users = self.npu.users.seen if self.npu.users else ()
        return Npu(
            driver=self.driver,
            platform=self.platform,
            node=self._node_path(),
            access=node.access if node else None,
            iommu=self.iommu,
            iova_alignment=probe.alignment if probe else told.alignment,
            multi_domain=probe.multi_domain if probe else told.multi_domain,
            fds=told.fds,
            holds=self._holds() or told.holds,
            users=tuple(user.name for user in users),
        )

    def _node_path(self) -> str | None:
        node = self.npu.node
        if node is None:
            return "" if self.npu.absent or self.npu.versions else None
        return "" if node.present is False else node.path

    def _holds(self) -> tuple[Hold, ...]:
        probe = self.probe
        if probe is None or probe.free is None or not probe.free_exact:
            return ()
        taken = (DOMAIN_BYTES - PAGE - probe.free) // PAGE * PAGE
        return (Hold(probe.domain, (taken,), "other programs"),) if taken > NOISE_BYTES else ()


def read_readings(root: Root, live: bool = False) -> Readings:
    """Read everything. Never raises for what a file holds."""
    reader = Reader(root)
    return Readings(
        soc=soc.read(reader),
        npu=npu.read(reader),
        memory=memory.read(reader),
        limits=memory.read_limits(reader),
        cpu=cpu.read(reader),
        clocks=clocks.read(reader),
        log=log.read(reader),
        library=library.read(reader),
        probe=probed.read(reader),
        described=described.read(reader),
        unreadable=tuple(reader.unreadable),  # last: the others fill it
        live=live,
    )
