"""The NPU: its driver, its node, who may open it and who has it open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.reader import quote
from rk_gemma_runtime.doctor.readers import node as nodes
from rk_gemma_runtime.doctor.readers import switched_off, users

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader
    from rk_gemma_runtime.doctor.readers.node import Node
    from rk_gemma_runtime.doctor.readers.users import Users

MODULE = "sys/module/rknpu/version"
DEBUG = ("sys/kernel/debug/rknpu/version", "proc/rknpu/version")
LOAD = ("sys/kernel/debug/rknpu/load", "proc/rknpu/load")
ACTIONS = "rk-gemma/actions"
SILENT = "rk-gemma/driver-silent"
VERSION = re.compile(r"v?([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})")
CORE = re.compile(r"Core[0-9]: *([0-9]{1,3})%")
ANY_SYSFS = ("sys/module", "sys/class/drm", "sys/class/thermal", "sys/devices/system/cpu/cpufreq")
CODE_FACTOR = 10000


@dataclass(frozen=True)
class Version:
    """A driver version and where it was read."""

    text: str
    where: str


@dataclass(frozen=True)
class NpuReading:
    """`versions`: what each place says. `other_driver`: another driver that holds the NPU (rocket). `absent`: /sys is
    there and shows no rknpu driver. `load`: percent per core. `iommu_sysfs` is what the device's IOMMU group says;
    `silent` is why the driver gave no answer to the questions that it was asked, or "". `switched_off`: nodes of the
    NPU that the device tree disables; looked for where there is no node in /dev."""

    versions: tuple[Version, ...] = ()
    other_driver: str = ""
    absent: bool = False
    node: Node | None = None
    users: Users | None = None
    load: tuple[int, ...] | None = None
    iommu_ioctl: bool | None = None
    iommu_sysfs: bool | None = None
    silent: str = ""
    switched_off: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """The driver's version; "" where there is no driver."""
        if self.versions:
            return self.versions[0].text
        return "" if self.absent else None


def read(reader: Reader) -> NpuReading:
    """Read everything about the NPU that files tell."""
    found = nodes.read(reader)
    actions = reader.value(ACTIONS, _actions, needed=False) or {}
    versions = tuple(_versions(reader, actions, found.drm_version))
    node = found.node
    sysfs_alive = any(reader.root.names(folder) for folder in ANY_SYSFS)
    enabled = actions.get("GET_IOMMU_EN")
    return NpuReading(
        versions=versions,
        other_driver=found.other_driver,
        absent=not versions and node is None and reader.absent(MODULE) and sysfs_alive,
        node=node,
        users=users.read(reader),
        load=_first(reader, LOAD),
        iommu_ioctl=None if enabled is None else enabled != 0,
        iommu_sysfs=nodes.iommu_group(reader, node),
        silent=(reader.text(SILENT, needed=False) or "").strip()[:200],
        switched_off=switched_off.read(reader) if node is None else (),
    )


def _versions(reader: Reader, actions: dict[str, int], drm: str) -> list[Version]:
    code = actions.get("GET_DRV_VERSION")
    texts: list[tuple[str | None, str]] = [(drm, "DRM version")]
    if code:
        texts.insert(0, (_from_code(code), "the driver's own answer (ioctl)"))
    texts.append((reader.value(MODULE, _version, needed=False), f"/{MODULE}"))
    texts += [(reader.value(name, _debug_version, needed=False), f"/{name}") for name in DEBUG]
    return [Version(text, where) for text, where in texts if text]


def _from_code(code: int) -> str:
    return f"{code // CODE_FACTOR}.{code // 100 % 100}.{code % 100}"


def _version(text: str) -> str:
    found = VERSION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{quote(text)} is not a driver version")
    return found[1]


def _debug_version(text: str) -> str:
    head, _, tail = text.partition(": ")
    if head != "RKNPU driver":
        raise ValueError(f"{quote(text)} is not what the driver writes here")
    return _version(tail)


def _actions(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 2 or not words[1].isascii() or not words[1].isdecimal():
            raise ValueError(f"{quote(line)} is not action and value")
        found[words[0]] = int(words[1][:18])
    return found


def _first(reader: Reader, places: tuple[str, ...]) -> tuple[int, ...] | None:
    found = (reader.value(name, _load, needed=False) for name in places)
    return next((load for load in found if load is not None), None)


def _load(text: str) -> tuple[int, ...]:
    if not text.startswith("NPU load:"):
        raise ValueError(f"{quote(text)} is not an NPU load")
    cores = CORE.findall(text) or re.findall(r"NPU load: *([0-9]{1,3})%", text)
    if not cores:
        raise ValueError(f"{quote(text)} names no core")
    return tuple(map(int, cores))
