"""The rknpu driver's IOMMU: 16 domains of 4 GiB, and how Linux finds an I/O address in one.

Alignment (rknpu 0.9.6 and 0.9.8, and the kernel's alloc_iova): from the top downwards, either at any page or, with
size-aligned addresses, at a multiple of the next power of two. Page 0 is never used, so that with size alignment a
buffer above 2 GiB has no place at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from rk_gemma_runtime.board.facts import DOMAIN_BYTES

PAGE = 4096


@dataclass(frozen=True)
class Span:
    """A mapped buffer: [start, start + bytes) of a domain's addresses."""

    start: int
    bytes: int
    what: str

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.bytes


class Domain:
    """One domain's addresses. `size_aligned` as the driver does up to 0.9.6."""

    def __init__(self, size_aligned: bool) -> None:
        self._size_aligned = size_aligned
        self.spans: list[Span] = []

    def allocate(self, size: int, what: str) -> Span | None:
        """Map a buffer; None if no range is free."""
        size = -(-size // PAGE) * PAGE
        align = 1 << (size - 1).bit_length() if self._size_aligned else PAGE
        top = DOMAIN_BYTES
        for taken in [*sorted(self.spans, key=lambda span: -span.start), Span(0, PAGE, "")]:
            start = (top - size) // align * align
            if start >= taken.end:
                span = Span(start, size, what)
                self.spans.append(span)
                return span
            top = taken.start
        return None

    @property
    def used(self) -> int:
        """Bytes mapped."""
        return sum(span.bytes for span in self.spans)
