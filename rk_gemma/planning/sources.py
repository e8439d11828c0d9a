"""From what a person names - a model, a bundle, a config.json, a profile, gigabytes - to a request and a board."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rk_gemma_runtime.board import Board, Limits, Memory, Npu, find_profile, read_profile, this_board
from rk_gemma_runtime.board.facts import GIB, NEWEST_DRIVER, usual_available
from rk_gemma_runtime.board.versions import version_key, version_of
from rk_gemma_runtime.bundle import MANIFEST, Bundle
from rk_gemma_runtime.errors import LibraryError, UsageError
from rk_gemma_runtime.memory.dtypes import dtype_of
from rk_gemma_runtime.memory.models import NAMES, by_name
from rk_gemma_runtime.memory.request import Request, request_for
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT, Shape, from_config

CONFIG_LIMIT = 1 << 20
MOST_RAM_GB = 1024
LONGEST_NAME = 1000
ASSUMED = "assumed"
NEWEST_RELEASE = (1, 3)
EMBED_FLASH_SINCE = (1, 2)  # before, the embedding is kept in RAM


def request_of(model: str, context: int, dtype: str, domain: int = 0, runtime: str = "") -> Request:
    """Make a request from MODEL, BUNDLE or config.json, for a release of librkllmrt, or for the newest. Raises
    UsageError, BundleError."""
    release = release_of(runtime) if runtime else NEWEST_RELEASE
    if len(model) > LONGEST_NAME:
        raise UsageError(f"{model[:40]}...: not the name of a model")
    path = Path(model)
    if (path / MANIFEST).is_file():
        request = _of_bundle(Bundle.open(path), context, dtype, domain)
        return replace(request, release=release, runtime=runtime, embed_flash=release >= EMBED_FLASH_SINCE)
    # What is there wins; a name has at most an owner before it.
    shape = None if path.exists() or model.count("/") > 1 or model[:1] in {"/", "."} else by_name(model)
    if shape is None:
        shape = _of_config(path / "config.json" if path.is_dir() else path, model)
    request = Request(shape, dtype_of(dtype or "w8a8"), base_domain=domain, release=release)
    request = replace(request, embed_flash=release >= EMBED_FLASH_SINCE)
    return replace(request, context=context or min(DEFAULT_CONTEXT, request.most))


def _of_bundle(bundle: Bundle, context: int, dtype: str, domain: int) -> Request:
    if dtype:
        dtype_of(dtype)
    request = request_for(bundle, context, domain, dtype)
    if request is None:
        lack = (
            "no NPU weights" if bundle.manifest.npu is None else "no known model shape or weight type in its manifest"
        )
        raise UsageError(f"{bundle.directory}: {lack}; plan its model by name or config.json")
    return request


def _of_config(path: Path, given: str) -> Shape:
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file")
        if path.stat().st_size > CONFIG_LIMIT:
            raise UsageError(
                f"{path}: too large for a config.json; give a model's name, a bundle's directory or a config.json"
            )
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
        raise UsageError(f"{path}: not a model config (not a mapping)")
    name = str(config.get("_name_or_path") or path.resolve().parent.name)
    return from_config(config, "".join(c for c in name if c.isprintable())[:80] or "this model")


def board_of(profile: str, root: str, ram: float | None, driver: str) -> Board:
    """Find the board: a profile, a capture, or one with so much RAM and this driver; without either the board this
    runs on, else one with 16 GB. Raises UsageError."""
    if (profile or root) and (ram is not None or driver or (profile and root)):
        raise UsageError("--board and --root describe a whole board; leave out --ram, --driver and the other")
    if root:
        return _captured(root)
    if profile:
        return read_profile(find_profile(profile))
    if ram is not None and not 0 < ram <= MOST_RAM_GB:
        raise UsageError(f"--ram {ram:g} is not an amount of RAM in GB")
    if ram is None and not driver:
        here = this_board()
        if here.npu.driver is not None:
            return here
    driver = driver or NEWEST_DRIVER
    if driver != "none" and (len(version_of(driver)) != 3 or driver.count(".") != 2):
        raise UsageError(f"unknown --driver {driver!r}; choose a version such as {NEWEST_DRIVER}, or none")
    board = plain_board(ram or 16, "" if driver == "none" else driver)
    return board if ram else replace(board, name=ASSUMED)


def _captured(root: str) -> Board:
    from rk_gemma_runtime.doctor.board import Asked, open_board
    from rk_gemma_runtime.doctor.readings import read_readings

    with open_board(Asked(root=root)) as (place, live):
        return read_readings(place, live).board()


def is_assumed(board: Board) -> bool:
    """Whether the board was assumed, because none was named."""
    return board.name == ASSUMED


def plain_board(ram: float, driver: str = NEWEST_DRIVER) -> Board:
    """Make an RK3588 with nothing else to do."""
    total = int(ram * GIB)
    return Board(
        title=f"an RK3588 board with {ram:g} GB",
        soc="rk3588",
        npu=Npu(
            driver=driver, platform="RK3588", node="/dev/dri/renderD129" if driver else "", access=True, iommu=True
        ),
        memory=Memory(total, usual_available(total), 0, None),
        limits=Limits(1024, 1048576),
    )


def library_here() -> str:
    """Read the version of this machine's librkllmrt; empty if there is none. It is not loaded."""
    from rk_gemma_runtime.librkllm.identify import identify
    from rk_gemma_runtime.librkllm.library import find

    try:
        version = identify(find(), limit_s=0).version
    except LibraryError:
        return ""
    return version if version and version_key(version)[:2] >= (1, 1) else ""


def release_of(text: str) -> tuple[int, int]:
    """Parse major and minor of a librkllmrt release. Raises UsageError."""
    numbers = version_key(text)
    if len(numbers) < 2 or not (1, 1) <= numbers[:2] <= (1, 99):
        raise UsageError(f"unknown --runtime {text!r}; choose a release from 1.1.0 on, such as 1.2.3")
    return numbers[0], numbers[1]
