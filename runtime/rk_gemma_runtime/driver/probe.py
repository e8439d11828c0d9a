"""The bounded probe: how large a buffer the driver maps, and how much of a domain is free.

Buffers are real: they take pages of RAM at once. So there is a budget of bytes and a deadline; where one of them ends
the search, the answer is a lower bound. Whatever is held is given back, also when a signal comes.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from rk_gemma_runtime.driver.ask import Result
from rk_gemma_runtime.driver.ioctl import ActionCode, MemFlag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rk_gemma_runtime.driver.device import Buffer, Device

MIB = 1 << 20
GRAIN = 16 * MIB
MOST = 3984 * MIB  # 3.9 GiB: what one domain of 4 GiB can at best hold in one piece
HALF = 2048 * MIB
# As librkllmrt asks for weights; the misc device knows contiguous memory only.
LIKE_THE_LIBRARY = MemFlag.NON_CONTIGUOUS | MemFlag.CACHEABLE | MemFlag.IOMMU_LIMIT_IOVA_ALIGNMENT
PLAIN = MemFlag.NON_CONTIGUOUS | MemFlag.CACHEABLE
CONTIGUOUS = MemFlag.CACHEABLE
# No power of two: a size-aligned I/O address shows, and by chance three in a row do not.
SHOWING = 17 * MIB
REFUSALS = {errno.EFAULT, errno.ENOMEM, errno.EINVAL}


class Ended(Exception):
    """The search has to stop: why."""


class Probe:
    """Measures one domain of an open device. `budget` bytes of RAM at most, `seconds` at most (the call that is under
    way when they end is waited for); `stopped` is asked before each allocation."""

    def __init__(
        self,
        device: Device,
        budget: int,
        seconds: float,
        domain: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._device, self._budget = device, budget // GRAIN * GRAIN
        self._start = time.monotonic()
        self._deadline = self._start + seconds
        self._stopped = stopped
        self._held: list[Buffer] = []
        self._no_pages = False
        self._flags = LIKE_THE_LIBRARY if device.drm else CONTIGUOUS
        self.result = Result(domain)

    def run(self) -> Result:
        """Measure everything, cheapest first. What fails is noted; nothing stays allocated."""
        try:
            self._choose_flags()
            if self._device.drm:
                self._alignment()
                self._domains()
            self._largest()
            self._free()
        except Ended as error:
            self.result.notes.append(str(error))
        except OSError as error:
            self.result.notes.append(f"errno {error.errno} ({error.strerror})")
        finally:
            self._release()
        self.result.flags = int(self._flags)
        self.result.seconds = round(time.monotonic() - self._start, 3)
        return self.result

    def _choose_flags(self) -> None:
        """Choose flags that the driver takes: an older one may refuse the newest."""
        if not self._device.drm or self._fits(GRAIN):
            return
        self._flags = PLAIN
        if not self._fits(GRAIN):
            raise OSError(errno.ENOMEM, f"not even {GRAIN // MIB} MiB can be had")

    def _alignment(self) -> None:
        with_three = [self._take(SHOWING) for _ in range(3)] if self._budget >= 3 * SHOWING else []
        self._release()
        if not with_three or None in with_three:
            return
        power = 1 << (SHOWING - 1).bit_length()
        aligned = all(buffer is not None and buffer.address % power == 0 for buffer in with_three)
        self.result.alignment = "size" if aligned else "page"

    def _domains(self) -> None:
        """Find out whether domains work: a kernel without them accepts every id and stays where it is."""
        try:
            before = self._device.action(ActionCode.GET_IOMMU_DOMAIN_ID)
            other = 1 if before != 1 else 0
            self._device.action(ActionCode.SET_IOMMU_DOMAIN_ID, other)
            try:
                self.result.multi_domain = self._device.action(ActionCode.GET_IOMMU_DOMAIN_ID) == other
            finally:
                self._device.action(ActionCode.SET_IOMMU_DOMAIN_ID, before)
        except OSError as error:
            self.result.notes.append(f"switching IOMMU domains: errno {error.errno} ({error.strerror})")

    def _largest(self) -> None:
        """Find the largest single buffer: the whole first, then what decides between drivers, then by halves."""
        top = min(MOST, self._budget)
        low, high = 0, top + GRAIN
        self._no_pages = False
        for size in self._sizes(top):
            if not low < size < high:
                continue
            if self._fits(size):
                low = size
            else:
                high = size
            self.result.largest = low
        while high - low > GRAIN:
            middle = (low + high) // 2 // GRAIN * GRAIN
            if self._fits(middle):
                low = middle
            else:
                high = middle
            self.result.largest = low
        self.result.largest = low
        self.result.largest_exact = not self._no_pages and (low < top or top == MOST)
        if not self.result.largest_exact:
            self.result.notes.append("RAM ended the search for the largest buffer")

    @staticmethod
    def _sizes(top: int) -> Iterator[int]:
        yield from (size for size in (top, HALF + GRAIN, HALF) if 0 < size <= top)

    def _free(self) -> None:
        """Fill the domain with ever smaller buffers until nothing more goes in."""
        size, taken = min(512 * MIB, self._budget), 0
        size = 1 << (size.bit_length() - 1) if size else 0  # a power of two fits wherever its alignment does
        self._no_pages = False
        while size >= GRAIN:
            if taken + size > self._budget:
                if size == GRAIN:
                    self.result.notes.append("RAM ended the count of free addresses")
                    return
                size //= 2
                continue
            buffer = self._take(size)
            taken += buffer.size if buffer else 0
            self.result.free = taken
            size = size if buffer else size // 2
        self.result.free_exact = not self._no_pages

    def _fits(self, size: int) -> bool:
        buffer = self._take(size)
        self._release()
        return buffer is not None

    def _take(self, size: int) -> Buffer | None:
        """Allocate a buffer; None if the driver refuses. Raises Ended before, OSError for any other error."""
        if self._stopped():
            raise Ended("interrupted")
        if time.monotonic() > self._deadline:
            raise Ended("time is up")
        try:
            buffer = self._device.mem_create(size, self.result.domain, self._flags)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            self._no_pages |= error.errno == errno.ENOMEM
            return None
        self._held.append(buffer)
        return buffer

    def _release(self) -> None:
        while self._held:
            buffer = self._held.pop()
            try:
                self._device.mem_destroy(buffer)
            except OSError as error:  # closing the node frees what is left
                self.result.notes.append(f"a buffer could not be given back: errno {error.errno}")
