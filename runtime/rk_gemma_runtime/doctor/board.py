"""The board that is asked for: this system, a directory, a capture, a profile. All of them end as a Root."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.profile import find_profile, load_tree
from rk_gemma_runtime.doctor import libraries, live
from rk_gemma_runtime.doctor.capture import unpack
from rk_gemma_runtime.doctor.directory import describe
from rk_gemma_runtime.doctor.root import OWN, Root
from rk_gemma_runtime.doctor.tree import write_tree
from rk_gemma_runtime.driver import ask
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.doctor.readings import Readings

LIVE = Path("/")
# Of the RAM that is available, the probe takes half at most, and never more than one domain.
MOST_PROBED = 4 << 30
LEAST_RAM = 256 << 20


@dataclass(frozen=True)
class Asked:
    """`root` a directory or a capture, `profile` a name or a file: one of them, or neither for this system. `library`
    is an explicit librkllmrt.so."""

    root: str = ""
    profile: str = ""
    library: str = ""


@contextmanager
def open_board(asked: Asked) -> Iterator[tuple[Root, bool]]:
    """Open the board: its root, and whether it is this system. Raises UsageError."""
    if asked.root and asked.profile:
        raise UsageError("--root and --board: give one of them")
    if asked.profile or _is_file(asked.root):
        with tempfile.TemporaryDirectory(prefix="rk-gemma-") as folder:
            place = Path(folder)
            if asked.profile:
                write_tree(load_tree(find_profile(asked.profile)), place)
            else:
                unpack(Path(asked.root), place)
            yield _described(place, asked.library), False
        return
    directory = Path(asked.root or LIVE)
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory or capture")
    if directory.resolve() == LIVE:
        yield _here(asked.library), True
    else:
        yield _described(directory, asked.library), False


def _is_file(name: str) -> bool:
    return bool(name) and Path(name).is_file()


def _here(library: str) -> Root:
    texts = live.here(LIVE)
    texts["rk-gemma/library"] = libraries.here(library).encode()
    return Root(LIVE, texts)


def _described(directory: Path, library: str) -> Root:
    """A capture says everything itself; of a card that is mounted here, nodes and library can be looked at."""
    texts: dict[str, str] = {}
    if not (directory / OWN).is_dir():
        texts = describe(directory, opened=False)
        if not texts["rk-gemma/nodes"]:  # no /dev in it, or no devices: nothing known
            del texts["rk-gemma/nodes"]
        text = libraries.under(Root(directory))
        texts |= {"rk-gemma/library": text} if text else {}
    if library:
        texts["rk-gemma/library"] = libraries.here(library)
    return Root(directory, {name: text.encode() for name, text in texts.items()})


def probe(root: Root, readings: Readings, live: bool, force: bool) -> None:
    """Measure what the driver can map, and put the result where the readers look for it. Blocks for 20 s at most."""
    why = _no_probe(readings, live, force)
    node, available = readings.npu.node, readings.memory.available
    result = {"refused": why}
    if not why and node is not None and available is not None:
        result = ask.probe(node.path, min(available // 2, MOST_PROBED))
    root.add("rk-gemma/probe", json.dumps(result).encode())


def _no_probe(readings: Readings, live: bool, force: bool) -> str:
    node, users = readings.npu.node, readings.npu.users
    if not live:
        return "a probe needs the board itself"
    if node is None or node.present is False:
        return "the NPU has no node"
    if node.access is False:
        return f"{node.path} may not be opened"
    if readings.memory.available is None:
        return "how much RAM is available is not known, and a probe takes some"
    if readings.memory.available < LEAST_RAM:
        return f"only {readings.memory.available >> 20} MiB of RAM are available, and a probe takes some"
    if users is not None and users.seen and not force:
        names = ", ".join(user.name for user in users.seen[:3])
        return (
            f"others use the NPU ({names}) and a probe can make their allocations fail; --force probes all the same"
        )
    return ""
