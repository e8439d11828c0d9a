"""Nodes of the NPU that the device tree has switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.reader import Reader

TREE = "proc/device-tree"
NPU_NODE = ("npu@", "rknpu@")  # how its nodes begin, in the vendor's trees and in mainline's
ON = {"okay", "ok"}  # what the specification has, and what older trees write


def read(reader: Reader) -> tuple[str, ...]:
    """Return the NPU's nodes whose status is not okay; a node without a status is on."""
    found = []
    for node in _nodes(reader):
        status = (reader.text(f"{node}/status", needed=False) or "okay").strip("\0 \n")
        if status not in ON:
            reader.text(f"{node}/compatible", needed=False)  # for the capture: it says whose tree it is
            found.append(node.rpartition("/")[2])
    return tuple(found)


def _nodes(reader: Reader) -> Iterator[str]:
    """Yield the paths of the NPU's nodes: they stand at the root, or in the bus of the chip."""
    names = reader.root.names(TREE)
    for folder in (TREE, *(f"{TREE}/{name}" for name in names if name == "soc" or name.startswith("soc@"))):
        for name in names if folder == TREE else reader.root.names(folder):
            if name.startswith(NPU_NODE):
                yield f"{folder}/{name}"
