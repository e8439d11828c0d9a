"""Which releases of the toolkit there are, which Pythons each one runs on, and the packages that it needs.

Pins are those of the requirements.txt that Rockchip ships (1.2.2 on; its file of 1.2.2 lacks a line break and is
repaired here). Older wheels name their packages themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.toolkit.errors import HostError, WheelError
from rk_gemma_runtime.board.versions import release_of

if TYPE_CHECKING:
    from pathlib import Path

    from rk_gemma.toolkit.wheel import Wheel

Python = tuple[int, int]
# From release 81 on setuptools has no pkg_resources, which the toolkit's packages import.
LAST = "setuptools==75.8.0"
TORCH = ("torch==2.6.0", "torchvision==0.21.0")
COMMON = (
    *TORCH, "numpy>=1.23.1,<=1.26.4", "accelerate>=1.0.1,<=1.5.2", "protobuf>=4.21.6,<=4.25.4",
    "sentencepiece==0.2.0", "tiktoken>=0.7,<=0.9", "auto_gptq==0.7.1", "optimum==1.23.3", "pillow==10.4.0",
    "tqdm>=4.64.0", "transformers_stream_generator==0.0.5", "einops==0.4.1", "scipy>=1.5.4", "tabulate==0.9.0",
    "Jinja2==3.1.4", "safetensors==0.5.3", "colorlog==6.8.2", "datamodel_code_generator==0.26.0",
    "jsonschema==4.23.0", "flatbuffers==24.3.25", "jsonlines==4.0.0",
)  # fmt: skip
PINS_121 = (*COMMON, "transformers==4.51.3", "datasets==2.14.6", "timm==1.0.15")
PINS_122 = (*COMMON, "transformers==4.55.2", "datasets==4.1.1", "pyarrow==21.0.0", "timm==1.0.19")
PINS_123 = (*PINS_122, "easydict==1.13", "addict==2.4.0")
PINS_130 = (*(p for p in PINS_123 if not p.startswith("transformers==")), "transformers==5.8.0", "matplotlib>=3.9.4")


@dataclass(frozen=True)
class Release:
    """`pythons` have a wheel; of these `broken` cannot have its packages, with the reason. `pins` is empty where the
    wheel alone says what it needs."""

    version: str
    pythons: tuple[int, ...]
    pins: tuple[str, ...] = ()
    broken: tuple[tuple[int, str], ...] = ()


TRANSFORMERS_455 = "transformers 4.55.2, which it needs, asks for Python 3.9"
RELEASES = (
    Release("1.1.0", (8,)),
    *(Release(v, (8, 10)) for v in ("1.1.1", "1.1.2", "1.1.3", "1.1.4")),
    Release("1.2.0", (8, 9, 10, 11, 12)),
    Release("1.2.1", (8, 9, 10, 11, 12), PINS_121, ((8, "torch 2.6.0, which it needs, asks for Python 3.9"),)),
    Release("1.2.2", (8, 9, 10, 11, 12), PINS_122, ((8, TRANSFORMERS_455),)),
    Release("1.2.3", (9, 10, 11, 12), PINS_123, ((8, TRANSFORMERS_455),)),
    Release("1.3.0", (9, 10, 11, 12), PINS_130, ((9, "transformers 5.8.0, which it needs, asks for Python 3.10"),)),
    Release("1.3.1", (10, 11, 12), PINS_130),
)  # fmt: skip
OLDEST = "1.1.0"
NEWEST_PYTHON = 12  # numpy 1.26, which all of them need, has no build for a newer one


def check_release(wheel: Wheel, own_pins: bool) -> Release | None:
    """Find the wheel's release; None for an unknown one, which needs `own_pins`. Raises WheelError, HostError."""
    number = release_of(wheel.version)
    if not number or number < release_of(OLDEST):
        raise WheelError(
            f"{wheel.path}: rkllm-toolkit {wheel.version} writes files that no librkllmrt from {OLDEST} on reads;"
            " use a wheel of 1.1.0 or later (1.2.3 runs everywhere)"
        )
    found = next((release for release in RELEASES if release_of(release.version) == number), None)
    if found is None and not own_pins:
        raise WheelError(
            f"{wheel.path}: rkllm-toolkit {wheel.version} is not known here, so neither are its packages; give its"
            " requirements.txt with --pins FILE"
        )
    if found is not None:
        _check_python(found, wheel, own_pins)
    return found


def _check_python(release: Release, wheel: Wheel, own_pins: bool) -> None:
    """What a person's own pins make possible is theirs to know."""
    minor, broken = wheel.python[1], dict(release.broken)
    there = ", ".join(f"3.{n}" for n in release.pythons if n not in broken)
    from_table = bool(release.pins) and not (wheel.requires and release is by_version("1.2.1"))
    if own_pins:
        return
    if minor in broken and from_table:
        raise HostError(f"{wheel.path}: it cannot be installed: {broken[minor]}; use the wheel of Python {there}")
    if minor > NEWEST_PYTHON or (minor not in release.pythons and from_table):
        raise HostError(
            f"{wheel.path}: rkllm-toolkit {release.version} has no packages for Python 3.{minor}; use {there}"
        )


def by_version(version: str) -> Release | None:
    """Return the release of this version, a beta counted as its release; None if it is not known."""
    return next((r for r in RELEASES if release_of(r.version) == release_of(version)), None)


def pins_of(release: Release | None, wheel: Wheel) -> tuple[str, ...]:
    """List what the wheel needs. Raises WheelError where nobody says it."""
    table = release.pins if release else ()
    own = tuple(text for text in map(_plain, wheel.requires) if text)
    # 1.2.1 shipped pins for one family of models only; its wheel's own list is the nearer one.
    if own and (not table or release is by_version("1.2.1")):
        return own
    if not table:
        raise WheelError(
            f"{wheel.path}: neither the wheel nor this release tells which packages {wheel.version} needs; give a"
            " list with --pins FILE, or install none with --no-pins"
        )
    return table


def _plain(requirement: str) -> str:
    """Turn `numpy (==1.23.1) ; extra == 'x'` into numpy==1.23.1; what is for an extra is dropped."""
    text, _, marker = requirement.partition(";")
    if "extra" in marker:
        return ""
    text = re.sub(r"\s+", "", text.replace("(", "").replace(")", ""))
    return f"{text} ; {marker.strip()}" if marker.strip() else text


GLUED = re.compile(r"^(\S+==\d+(?:\.\d+)*)([A-Za-z][\w.-]*\s*(?:\[.*\])?\s*[<>=!~].*)$")


def read_pins(path: Path) -> tuple[str, ...]:
    """Read a requirements file. A line that lost its break, as in that of 1.2.2, is two; doubles are dropped. Raises
    EnvironmentFault."""
    from rk_gemma.toolkit.errors import EnvironmentFault

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(f"{path}: cannot be read as a list of packages: {error}") from error
    lines: list[str] = []
    for line in text.splitlines():
        bare = line.partition(" #")[0].strip()
        if bare and not bare.startswith("#"):
            glued = GLUED.match(bare)
            lines += [glued[1], glued[2]] if glued else [bare]
    return tuple({_key(line): line for line in lines}.values())


def _key(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", name_of(requirement)) if name_of(requirement) else requirement


def name_of(requirement: str) -> str:
    """Return the package's name in lower case; empty for an option of pip."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    return found[0].lower() if found else ""


def split_torch(pins: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part the packages that come from torch's own index from the others."""
    first = {"torch", "torchvision", "torchaudio"}
    return tuple(p for p in pins if name_of(p) in first), tuple(p for p in pins if name_of(p) not in first)
