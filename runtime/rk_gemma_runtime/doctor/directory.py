"""What a directory of a board's files shows beside the files: device nodes, the kind of container."""

from __future__ import annotations

import grp
import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM_GROUPS = 1000  # ids below belong to the system; a name above may be a person's
NODES = ("dev/dri/renderD*", "dev/rknpu", "dev/accel/accel*")
CGROUPS = ("docker", "kubepods", "containerd", "lxc", "podman")


def describe(directory: Path, opened: bool) -> dict[str, str]:
    """Describe what a directory of a board's files shows beside them: nodes and the kind of container."""
    paths = [path for pattern in NODES for path in sorted(directory.glob(pattern))]
    lines = filter(None, (_node(directory, path, opened) for path in paths))
    text = "".join(f"{line}\n" for line in lines)
    return {"rk-gemma/nodes": text, "rk-gemma/container": f"{container(directory)}\n"}


def _node(directory: Path, path: Path, opened: bool) -> str:
    try:
        facts = path.stat()
    except OSError:
        return ""
    if not stat.S_ISCHR(facts.st_mode):
        return ""
    access = "?"
    if opened:
        access = "rw" if os.access(path, os.R_OK | os.W_OK) else "denied"
    owner = "root" if facts.st_uid == 0 else "other"
    return f"/{path.relative_to(directory)} {facts.st_mode & 0o777:03o} {owner} {_group(facts.st_gid)} {access}"


def _group(number: int) -> str:
    try:
        name = grp.getgrgid(number).gr_name
    except KeyError:
        return f"gid-{number}"
    return name if number < SYSTEM_GROUPS and name.split() == [name] else "other"


def container(directory: Path) -> str:
    """Tell the kind of container: docker, podman, lxc ... or none."""
    if (directory / ".dockerenv").exists():
        return "docker"
    if (directory / "run/.containerenv").exists():
        return "podman"
    try:
        text = (directory / "proc/1/cgroup").read_text(encoding="utf-8", errors="replace")[: 1 << 16]
    except OSError:
        return "none"
    return next((word for word in CGROUPS if re.search(rf"[/:.-]{word}\b", text)), "none")
