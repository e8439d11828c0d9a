"""An open rknpu node."""

from __future__ import annotations

import fcntl
import os
from ctypes import c_char_p, cast, create_string_buffer, sizeof
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.driver import ioctl

if TYPE_CHECKING:
    from types import TracebackType

    from rk_gemma_runtime.driver.ioctl import ActionCode, MemFlag

NAME_ROOM = 64
MISC = "/dev/rknpu"


@dataclass(frozen=True)
class Buffer:
    """Memory that the driver has mapped for the NPU: bytes, I/O address, IOMMU domain."""

    handle: int
    size: int
    address: int
    domain: int
    object: int


class Device:
    """An open node; close it, or leave the `with` block, and the driver frees what is left. Every call may block in
    the kernel (switching domains waits for others up to 6 s) and raises OSError with the driver's errno. Not thread
    safe."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.drm = node != MISC
        self._fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the node; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def drm_version(self) -> tuple[str, str, str]:
        """Ask for name, version and date of the DRM driver behind the node; the date is empty in newer kernels."""
        name, date, text = (create_string_buffer(NAME_ROOM) for _ in range(3))
        wanted = ioctl.DrmVersion(
            name_len=NAME_ROOM - 1, name=cast(name, c_char_p),
            date_len=NAME_ROOM - 1, date=cast(date, c_char_p),
            desc_len=NAME_ROOM - 1, desc=cast(text, c_char_p),
        )  # fmt: skip
        fcntl.ioctl(self._fd, ioctl.DRM_IOCTL_VERSION, wanted, True)
        numbers = (wanted.version_major, wanted.version_minor, wanted.version_patchlevel)
        return _words(name.value), ".".join(map(str, numbers)), _words(date.value)

    def action(self, code: ActionCode, value: int = 0) -> int:
        """Ask or set one thing; the value that the driver leaves behind."""
        asked = ioctl.Action(code, value)
        fcntl.ioctl(self._fd, ioctl.command(ioctl.ACTION, sizeof(asked), self.drm), asked, True)
        return int(asked.value)

    def mem_create(self, size: int, domain: int, flags: MemFlag) -> Buffer:
        """Allocate pages and map them into a domain; takes RAM at once."""
        wanted = ioctl.MemCreate(size=size, flags=flags, iommu_domain_id=domain)
        fcntl.ioctl(self._fd, ioctl.command(ioctl.MEM_CREATE, sizeof(wanted), self.drm), wanted, True)
        return Buffer(wanted.handle, wanted.size, wanted.dma_addr, domain, wanted.obj_addr)

    def mem_destroy(self, buffer: Buffer) -> None:
        """Give a buffer back. On the misc device the handle is a descriptor, which is closed too."""
        wanted = ioctl.MemDestroy(handle=buffer.handle, obj_addr=buffer.object)
        try:
            fcntl.ioctl(self._fd, ioctl.command(ioctl.MEM_DESTROY, sizeof(wanted), self.drm), wanted, True)
        finally:
            if not self.drm:
                os.close(buffer.handle)


def _words(raw: bytes) -> str:
    """Decode one printable word, or nothing."""
    text = "".join(c for c in raw.decode("ascii", errors="replace") if c.isprintable())
    return "-".join(text.split())
