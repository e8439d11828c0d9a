"""Numbers and structs of the rknpu driver, measured from its headers 0.9.6 and 0.9.8: the same in both.

Held against the measured tables by tests/abi/test_driver_layout.py.
"""

from __future__ import annotations

from ctypes import Structure, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, sizeof
from enum import IntEnum, IntFlag

READ_WRITE = 3


class Action(Structure):
    """rknpu_action: `flags` is an ActionCode."""

    _fields_ = (("flags", c_uint32), ("value", c_uint32))


class MemCreate(Structure):
    """rknpu_mem_create. 0.9.6 calls the last word `reserved`."""

    _fields_ = (
        ("handle", c_uint32),
        ("flags", c_uint32),
        ("size", c_uint64),
        ("obj_addr", c_uint64),
        ("dma_addr", c_uint64),
        ("sram_size", c_uint64),
        ("iommu_domain_id", c_int32),
        ("core_mask", c_uint32),
    )


class MemDestroy(Structure):
    """rknpu_mem_destroy. DRM looks at `handle`, the misc device at `obj_addr`."""

    _fields_ = (("handle", c_uint32), ("reserved", c_uint32), ("obj_addr", c_uint64))


class DrmVersion(Structure):
    """drm_version of the kernel's DRM core: the same for every DRM driver. 64 bytes on 64-bit systems."""

    _fields_ = (
        ("version_major", c_int),
        ("version_minor", c_int),
        ("version_patchlevel", c_int),
        ("name_len", c_size_t),
        ("name", c_char_p),
        ("date_len", c_size_t),
        ("date", c_char_p),
        ("desc_len", c_size_t),
        ("desc", c_char_p),
    )


class ActionCode(IntEnum):
    """e_rknpu_action, those that are asked here."""

    GET_HW_VERSION = 0
    GET_DRV_VERSION = 1
    GET_IOMMU_EN = 18
    GET_TOTAL_SRAM_SIZE = 22
    GET_FREE_SRAM_SIZE = 23
    GET_IOMMU_DOMAIN_ID = 24
    SET_IOMMU_DOMAIN_ID = 25


class MemFlag(IntFlag):
    """e_rknpu_mem_type. LIMIT_IOVA_ALIGNMENT from 0.9.8 on."""

    NON_CONTIGUOUS = 1
    CACHEABLE = 2
    WRITE_COMBINE = 4
    KERNEL_MAPPING = 8
    IOMMU = 16
    ZEROING = 32
    SECURE = 64
    DMA32 = 128
    TRY_ALLOC_SRAM = 256
    TRY_ALLOC_NBUF = 512
    IOMMU_LIMIT_IOVA_ALIGNMENT = 1024


def request(kind: str, number: int, size: int) -> int:
    """Make a read-write ioctl number, as the kernel's _IOWR does on every architecture that RK3588 runs."""
    return READ_WRITE << 30 | size << 16 | ord(kind) << 8 | number


DRM_IOCTL_VERSION = request("d", 0, sizeof(DrmVersion))
DRM_COMMAND_BASE = 0x40
# Command numbers; the DRM node takes them as type d from 0x40 on, the misc device as type r from 0 on.
ACTION, MEM_CREATE, MEM_DESTROY = 0, 2, 4


def command(number: int, size: int, drm: bool) -> int:
    """Make the ioctl number of a command on a DRM node or on the misc device."""
    return request("d", DRM_COMMAND_BASE + number, size) if drm else request("r", number, size)
