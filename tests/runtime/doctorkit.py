"""What the doctor's tests share: profiles as trees, readings of them, and the words that are expected of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.profile import find_profile, load_tree, profile_names
from rk_gemma_runtime.doctor.readings import Readings, read_readings
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.doctor.tree import write_tree

if TYPE_CHECKING:
    from pathlib import Path

NAMES = profile_names()
HEALTHY = ("library", "note", 0)
# Profile: the worst finding, its severity, the exit code.
EXPECTED = {
    "container-masked": ("soc_masked", "error", 4),
    "driver-0.8.2": ("driver", "error", 4),
    "fd-limit-1024": ("models", "error", 4),
    "hot-throttled": ("heat", "warning", 0),
    "iommu-off": ("iommu", "error", 4),
    "low-ram": ("models", "error", 5),
    "mainline-no-rknpu": ("driver_missing", "error", 4),
    "misc-device": ("node_misc", "warning", 0),
    "nanopct6-16gb": ("ddr_clock", "warning", 0),
    "no-permission": ("node_permission", "error", 4),
    "npu-full": ("models", "error", 5),
    "npu-shared": ("npu_users", "warning", 0),
    "orangepi5-16gb": HEALTHY,
    "orangepi5-4gb": ("models", "error", 5),
    "orangepi5-8gb": HEALTHY,
    "orangepi5plus-32gb": HEALTHY,
    "rock5b-16gb": HEALTHY,
    "rock5b-driver-0.9.6": ("models", "error", 4),
}


def tree(directory: Path, name: str = "orangepi5-16gb", **parts: dict[str, Any]) -> Path:
    """A profile's tree in `directory`; `parts` change keys of its mappings."""
    profile = load_tree(find_profile(name))
    for part, keys in parts.items():
        profile[part] = {**profile.get(part, {}), **keys}
    write_tree(profile, directory)
    return directory


def put(directory: Path, name: str, content: str | bytes) -> None:
    """Put a file into a tree."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def readings(directory: Path) -> Readings:
    """What is read of a tree."""
    return read_readings(Root(directory))


def whys(found: Readings) -> dict[str, str]:
    """What could not be read, and why; the last reason where a file has several."""
    return {u.path: u.why for u in found.unreadable}
