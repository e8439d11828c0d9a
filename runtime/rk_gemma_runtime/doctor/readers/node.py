"""The device node: found by its driver's name, for its number differs between kernels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.doctor.reader import quote

if TYPE_CHECKING:
    from rk_gemma_runtime.doctor.reader import Reader

DRM = "sys/class/drm"
ACCEL = "sys/class/accel"
NODES = "rk-gemma/nodes"
DRM_VERSIONS = "rk-gemma/drm"
MISC = "/dev/rknpu"
RENDER = re.compile(r"renderD[0-9]{1,4}")
OTHER_DRIVERS = {"rocket"}


@dataclass(frozen=True)
class Node:
    """`kind` drm or misc; `present`: whether /dev has it (sysfs may know a node that a container was not given);
    `mode` as in 660; `access`: whether this user may open it for reading and writing."""

    path: str
    kind: str
    where: str
    present: bool | None = None
    mode: str = ""
    owner: str = ""
    group: str = ""
    access: bool | None = None


@dataclass(frozen=True)
class Found:
    """The NPU's node, the DRM version of its driver or "", and another driver that has the NPU, or ""."""

    node: Node | None
    drm_version: str
    other_driver: str


@dataclass(frozen=True)
class Entry:
    """A line of rk-gemma/nodes: PATH MODE OWNER GROUP rw|denied|?"""

    mode: str
    owner: str
    group: str
    access: bool | None


def read(reader: Reader) -> Found:
    """Find the node by the DRM driver's name, else by sysfs, else /dev/rknpu."""
    entries = reader.value(NODES, _entries, needed=False)
    names = reader.value(DRM_VERSIONS, _drm_names, needed=False) or {}
    asked = next((path for path, (name, _) in names.items() if name == "rknpu"), "")
    renders = [name for name in reader.root.names(DRM) if RENDER.fullmatch(name)]
    drivers = {name: _driver(reader, f"{DRM}/{name}") for name in renders}
    shown = next((f"/dev/dri/{name}" for name, driver in drivers.items() if driver == "RKNPU"), "")
    others = [_driver(reader, f"{ACCEL}/{name}") for name in reader.root.names(ACCEL) if name.startswith("accel")]
    path, kind, where = asked or shown, "drm", "DRM driver name rknpu" if asked else f"/{DRM}: DRIVER=RKNPU"
    if not path and entries and MISC in entries:
        path, kind, where = MISC, "misc", "device node"
    node = _node(path, kind, where, entries) if path else None
    return Found(node, names[asked][1] if asked else "", next((d for d in others if d in OTHER_DRIVERS), ""))


def iommu_group(reader: Reader, node: Node | None) -> bool | None:
    """Whether the device is in an IOMMU group; None where sysfs does not show the device."""
    if node is None or node.kind != "drm":
        return None
    device = f"{DRM}/{node.path.rpartition('/')[2]}/device"
    name = f"{device}/iommu_group/type"
    if reader.text(name, needed=False) is not None:
        return True
    shown = bool(reader.root.names(device))
    return False if shown and reader.absent(name) else None


def _node(path: str, kind: str, where: str, entries: dict[str, Entry] | None) -> Node:
    if entries is None:
        return Node(path, kind, where)
    entry = entries.get(path)
    if entry is None:
        return Node(path, kind, where, present=False)
    return Node(path, kind, where, True, entry.mode, entry.owner, entry.group, entry.access)


def _driver(reader: Reader, device: str) -> str:
    return reader.value(f"{device}/device/uevent", _uevent_driver, needed=False) or ""


def _uevent_driver(text: str) -> str:
    pairs = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    if "DRIVER" not in pairs:
        raise ValueError("names no driver")
    return pairs["DRIVER"]


def _entries(text: str) -> dict[str, Entry]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 5 or not re.fullmatch(r"[0-7]{3,4}", words[1]) or words[4] not in {"rw", "denied", "?"}:
            raise ValueError(f"{quote(line)} is not node, mode, owner, group and access")
        access = None if words[4] == "?" else words[4] == "rw"
        found[words[0]] = Entry(words[1], words[2], words[3], access)
    return found


def _drm_names(text: str) -> dict[str, tuple[str, str]]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3:
            raise ValueError(f"{quote(line)} is not node, driver and version")
        found[words[0]] = (words[1], words[2])
    return found
