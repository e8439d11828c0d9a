"""Profiles: boards and their states as YAML (board/profiles; keys in docs/profiles.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rk_gemma_runtime import plainyaml
from rk_gemma_runtime.board.chips import platform_of
from rk_gemma_runtime.board.facts import DOMAINS, GIB, Board, Clock, Clocks, Hold, Limits, Memory, Npu
from rk_gemma_runtime.errors import UsageError

# In an installed package beside this file, in a checkout where the simulator and the tests read them too.
_HERE = Path(__file__).resolve().parent
PLACES = (_HERE / "profiles", _HERE.parents[2] / "board" / "profiles")
LIMIT = 1 << 18
# What the system keeps for itself where a profile does not say how much is available.
SYSTEM_BYTES = 3 * GIB // 4
MIB = 1 << 20
DEFAULT_CMA_MB = 16
ABSENT = (None, "none")
KEYS = {
    "npu": {"driver", "platform", "node", "access", "group", "iommu", "iova_alignment", "multi_domain", "fds",
            "rocket", "occupied", "occupied_by"},
    "memory": {"ram_gb", "available_gb", "swap_gb", "swap_free_gb", "zram_gb", "cma_mb"},
    "limits": {"nofile_soft", "nofile_hard"},
}  # fmt: skip


def profile_names() -> list[str]:
    """Return the names that `find_profile` knows."""
    return sorted({path.stem for place in PLACES if place.is_dir() for path in place.glob("*.yaml")})


def find_profile(name: str) -> Path:
    """Find the file of a profile: a name of `profile_names()`, or a path. Raises UsageError."""
    for place in PLACES:
        if (place / f"{name}.yaml").is_file():
            return place / f"{name}.yaml"
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    raise UsageError(
        f"unknown board profile {name!r}; choose one of {', '.join(profile_names())}, or give a .yaml file"
    )


def load_tree(path: Path) -> dict[str, Any]:
    """Load the YAML mapping of a profile. Raises UsageError with one line."""
    try:
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path}: larger than {LIMIT} bytes; not a board profile")
        tree = plainyaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not plain YAML: {' '.join(str(error).split())[:160]}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: not a board profile (not a mapping)")
    return tree


def read_profile(path: Path) -> Board:
    """Read the board that a profile describes. Raises UsageError."""
    tree = load_tree(path)
    try:
        return _board(tree)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise UsageError(f"{path}: not a board profile: {error}") from error


def _board(tree: dict[str, Any]) -> Board:
    for section, keys in KEYS.items():
        # A misspelt amount of memory would be a board with more of it.
        odd = sorted(set(tree.get(section) or {}) - keys)
        if odd:
            raise ValueError(f"unknown key {section}.{odd[0]}; choose one of {', '.join(sorted(keys))}")
    return Board(
        name=str(tree.get("name") or ""),
        title=str(tree.get("board") or ""),
        soc=(soc := str(tree.get("soc") or "rk3588")),
        npu=_npu(tree.get("npu") or {}, soc),
        memory=_memory(tree.get("memory") or {}),
        limits=_limits(tree.get("limits") or {}),
        clocks=_clocks(tree),
    )


def _npu(tree: dict[str, Any], soc: str) -> Npu:
    driver = _word(tree.get("driver"), "0.9.8")
    alignment = tree.get("iova_alignment")
    if alignment not in {None, "size", "page"}:
        raise ValueError(f"npu.iova_alignment {alignment!r} is not size or page")
    return Npu(
        driver=driver,
        platform=_word(tree.get("platform"), platform_of(soc)),
        node=_word(tree.get("node"), "/dev/dri/renderD129") if driver else "",
        access=bool(tree.get("access", True)),
        iommu=bool(tree.get("iommu", True)),
        iova_alignment=alignment,
        multi_domain=bool(tree.get("multi_domain", True)),
        fds=_count(tree.get("fds")),
        holds=holds_of(tree),
    )


def _word(value: object, default: str) -> str:
    """Return the word; `none` stands for the empty one."""
    text = default if value is None else str(value)
    return "" if text == "none" else text


def holds_of(tree: dict[str, Any]) -> tuple[Hold, ...]:
    """Read `occupied` and `occupied_by` of a profile's `npu`. Raises ValueError."""
    by = str(tree.get("occupied_by") or "")
    holds = [
        Hold(int(domain), tuple(int(size) for size in str(sizes).split()), by)
        for domain, sizes in (tree.get("occupied") or {}).items()
    ]
    if any(not 0 <= hold.domain < DOMAINS or min(hold.buffers, default=1) <= 0 for hold in holds):
        raise ValueError(f"npu.occupied: domains are 0 to {DOMAINS - 1} and sizes above 0")
    return tuple(sorted(holds, key=lambda hold: hold.domain))


def _memory(tree: dict[str, Any]) -> Memory:
    total = _gib(tree.get("ram_gb"))
    available = _gib(tree.get("available_gb"))
    if available is None and total is not None:
        available = max(0, total - SYSTEM_BYTES)
    area = tree.get("cma_mb")
    cma = int(float(DEFAULT_CMA_MB if area in ABSENT else area) * MIB)
    return Memory(total, available, _gib(tree.get("swap_free_gb")) or 0, cma)


def _gib(value: Any) -> int | None:
    return None if value in ABSENT else int(float(value) * GIB)


def _count(value: Any) -> int | None:
    return None if value in ABSENT else int(value) or None


def _clocks(tree: dict[str, Any]) -> Clocks:
    clocks, heat = tree.get("clocks") or {}, tree.get("thermal") or {}
    npu, ddr = (_clock(clocks, key) for key in ("npu", "ddr"))
    return Clocks(npu, ddr, bool(heat.get("throttled")), npu is not None or ddr is not None)


def _clock(clocks: dict[str, Any], key: str) -> Clock | None:
    now, most = clocks.get(f"{key}_hz"), clocks.get(f"{key}_max_hz")
    if now in ABSENT or most in ABSENT:
        return None
    return Clock(int(str(now)), int(str(most)), str(clocks.get(f"{key}_governor") or "userspace"))


def _limits(tree: dict[str, Any]) -> Limits:
    soft, hard = tree.get("nofile_soft", 1024), tree.get("nofile_hard", 1048576)
    return Limits(int(soft), int(hard))
