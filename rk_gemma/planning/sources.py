"""From what a person names - a model, a bundle, a config.json, a profile, gigabytes - to a request and a board."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rk_gemma_runtime.board import Board, Limits, Memory, Npu, find_profile, read_profile, this_board
from rk_gemma_runtime.board.facts import GIB, NEWEST_DRIVER, version_of
from rk_gemma_runtime.board.profile import SYSTEM_BYTES
from rk_gemma_runtime.bundle import MANIFEST, Bundle
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.dtypes import dtype_of
from rk_gemma_runtime.memory.models import NAMES, by_name
from rk_gemma_runtime.memory.plan import Request, request_for
from rk_gemma_runtime.memory.shape import Shape, from_config

CONFIG_LIMIT = 1 << 20
DEFAULT_CONTEXT = 4096
MOST_RAM_GB = 1024


def request_of(model: str, context: int, dtype: str, domain: int = 0) -> Request:
    """MODEL, BUNDLE or config.json. Raises UsageError, BundleError."""
    path = Path(model)
    if (path / MANIFEST).is_file():
        return _of_bundle(Bundle.open(path), context, dtype, domain)
    shape = by_name(model)
    if shape is None:
        shape = _of_config(path / "config.json" if path.is_dir() else path, model)
    request = Request(shape, dtype_of(dtype or "w8a8"), base_domain=domain)
    return replace(request, context=context or min(DEFAULT_CONTEXT, request.most))


def _of_bundle(bundle: Bundle, context: int, dtype: str, domain: int) -> Request:
    request = request_for(bundle, context, domain)
    if request is None:
        lack = "no NPU weights" if bundle.manifest.npu is None else "no model shape in its manifest; export it again"
        raise UsageError(f"{bundle.directory}: {lack}")
    return replace(request, dtype=dtype_of(dtype)) if dtype else request


def _of_config(path: Path, given: str) -> Shape:
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            raise UsageError(f"{path}: larger than {CONFIG_LIMIT} bytes; this is no config.json")
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(NAMES)
        raise UsageError(
            f"{given}: no model of this name, no bundle and no config.json; known by name are {known}"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON; give a Hugging Face config.json") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path}: not a model config (no mapping)")
    name = str(config.get("_name_or_path") or path.resolve().parent.name)
    return from_config(config, "".join(c for c in name if c.isprintable())[:80] or "this model")


def board_of(profile: str, ram: float, driver: str) -> Board:
    """A profile, or a board with so much RAM and this driver; without either the board this runs on, and where it is
    none, one with 16 GB. Raises UsageError."""
    if profile and (ram or driver):
        raise UsageError("--board says it all: leave --ram and --driver out")
    if profile:
        return read_profile(find_profile(profile))
    if not 0 <= ram <= MOST_RAM_GB:
        raise UsageError(f"--ram {ram:g} is no amount of RAM in GB")
    here = this_board()
    if not ram and not driver and here.npu.driver is not None:
        return here
    driver = driver or NEWEST_DRIVER
    if driver != "none" and len(version_of(driver)) != 3:
        raise UsageError(f"--driver {driver!r} is no version such as {NEWEST_DRIVER}, nor none")
    return plain_board(ram or 16, "" if driver == "none" else driver)


def plain_board(ram: float, driver: str = NEWEST_DRIVER) -> Board:
    """An RK3588 with nothing else to do."""
    total = int(ram * GIB)
    return Board(
        title=f"an RK3588 board with {ram:g} GB",
        soc="rk3588",
        npu=Npu(
            driver=driver, platform="RK3588", node="/dev/dri/renderD129" if driver else "", access=True, iommu=True
        ),
        memory=Memory(total, max(0, total - SYSTEM_BYTES), 0, None),
        limits=Limits(1024, 1048576),
    )
