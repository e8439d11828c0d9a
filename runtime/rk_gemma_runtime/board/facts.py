"""A board, as far as the memory model and the checks need it. None is "not known": nothing here is a guess.

The numbers of the driver are those of rknpu 0.9.6 and 0.9.8 (their sources): 16 IOMMU domains of 4 GiB each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rk_gemma_runtime.board.versions import version_of

GIB = 1 << 30
DOMAINS = 16
DOMAIN_BYTES = 4 * GIB
UNKNOWN = "unknown"  # platform: the library will not be able to tell it
NEWEST_DRIVER = "0.9.8"  # that a released vendor kernel has
# The alignment flag that lets a buffer lie at any page came with this driver; how 0.9.7 aligns was not seen.
PAGE_ALIGNED_SINCE = (0, 9, 8)
SIZE_ALIGNED_UNTIL = (0, 9, 6)
# Open files: releases differ in whether each NPU buffer is a descriptor.
FEW_FDS = 4096  # 1024 was too few for those that open one for each; a plan doubts a hard limit below this
SAFE_FDS = 65536  # a round number far above any load that was seen; the doctor asks for more below it
WANTED_FDS = 102_400  # what the vendor's server sets before init (flask_server.py): the limit that is asked for


# What kernel and desktop of a vendor's image keep, where only the size of the RAM is known. With it no Gemma fits a
# board with 4 GB, as was reported (Pelochus/ezrknn-llm issue 13, an Orange Pi 5 with its desktop image).
IMAGE_BYTES = 3 * GIB // 2
SMALL_BOARD = 5 * GIB  # of RAM: below it even the smallest Gemma is in doubt


def usual_available(total: int) -> int:
    """Assume how much of the RAM a board has available."""
    return max(0, total - IMAGE_BYTES)


@dataclass(frozen=True)
class Hold:
    """What others hold in one IOMMU domain: buffers in bytes, in the order in which they were allocated."""

    domain: int
    buffers: tuple[int, ...]
    by: str = ""


@dataclass(frozen=True)
class Npu:
    """The NPU, its driver and who else is there. `driver` as "0.9.8", or "" where none is loaded; `node` is the
    device node, or "" where there is none. `iova_alignment` is size or page where it was measured or described.
    `users` are other programs that have the node open and whose buffers are not known."""

    driver: str | None = None
    platform: str | None = None
    node: str | None = None
    access: bool | None = None
    iommu: bool | None = None
    iova_alignment: str | None = None
    multi_domain: bool | None = None
    fds: int | None = None
    holds: tuple[Hold, ...] = ()
    users: tuple[str, ...] = ()

    @property
    def alignment(self) -> str | None:
        """size: an I/O address is aligned to the next power of two of the buffer's size; page: to 4 KiB."""
        version = version_of(self.driver or "")
        if self.iova_alignment is not None or not version:
            return self.iova_alignment
        if version >= PAGE_ALIGNED_SINCE:
            return "page"
        return "size" if version <= SIZE_ALIGNED_UNTIL else None


@dataclass(frozen=True)
class Memory:
    """In bytes. `available` is what the kernel calls MemAvailable, or what a control group leaves of it; `limit` is
    the lowest limit of a control group that is below `total`; `cma` the contiguous area (CmaTotal)."""

    total: int | None = None
    available: int | None = None
    swap_free: int | None = None
    cma: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Limits:
    """RLIMIT_NOFILE of the process that will load a model; unlimited is a very large number."""

    nofile_soft: int | None = None
    nofile_hard: int | None = None


@dataclass(frozen=True)
class Clock:
    """In Hz, now and at most."""

    now: int | None = None
    most: int | None = None
    governor: str | None = None


@dataclass(frozen=True)
class Clocks:
    """Clocks of the NPU and of RAM; None where the kernel has no devfreq node for it. `known`: they were looked at.
    `throttled`: the kernel has lowered clocks because of heat."""

    npu: Clock | None = None
    ddr: Clock | None = None
    throttled: bool = False
    known: bool = False


@dataclass(frozen=True)
class Board:
    """`name` of the profile or "", `title` what the board calls itself, `soc` such as rk3588s."""

    name: str = ""
    title: str = ""
    soc: str | None = None
    npu: Npu = field(default_factory=Npu)
    memory: Memory = field(default_factory=Memory)
    limits: Limits = field(default_factory=Limits)
    clocks: Clocks = field(default_factory=Clocks)
