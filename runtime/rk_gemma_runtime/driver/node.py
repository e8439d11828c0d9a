"""Which node is the NPU's? The number differs between kernels, and the GPU has nodes of its own."""

from __future__ import annotations

import re
from pathlib import Path

from rk_gemma_runtime.driver.device import MISC, Device

RENDER = re.compile(r"renderD[0-9]{1,4}")
NAME = "rknpu"
LIMIT = 4096


def find(sys_directory: Path = Path("/sys"), dev_directory: Path = Path("/dev")) -> str:
    """Find the NPU's node, or "". Other render nodes are opened only if sysfs does not tell."""
    return by_sysfs(sys_directory) or by_asking(dev_directory)


def by_sysfs(sys_directory: Path = Path("/sys")) -> str:
    """Find the render node whose device has the driver RKNPU, or "". Opens no node."""
    folder = sys_directory / "class/drm"
    try:
        names = sorted(path.name for path in folder.iterdir() if RENDER.fullmatch(path.name))
    except OSError:
        return ""
    ours = (name for name in names if "DRIVER=RKNPU" in _lines(folder / name / "device/uevent"))
    return next((f"/dev/dri/{name}" for name in ours), "")


def by_asking(dev_directory: Path = Path("/dev")) -> str:
    """Find the node whose DRM driver is called rknpu, else the misc device, else "". Opens every render node."""
    for path in sorted(dev_directory.glob("dri/renderD*")):
        try:
            with Device(str(path)) as device:
                if device.drm_version()[0] == NAME:
                    return str(path)
        except OSError:
            continue
    return MISC if (dev_directory / NAME).exists() else ""


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
