"""Which librkllmrt.so is this? Found out before the first call, because a wrong layout is not refused by the library:
it writes past structs.

The file is read, never loaded; what only the loaded library can show is asked for in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm import signals as s
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.content import Content, read_content
from rk_gemma_runtime.librkllm.faults import fault, obstacle, open_file, read_library
from rk_gemma_runtime.librkllm.loader import explain
from rk_gemma_runtime.librkllm.releases import RELEASES
from rk_gemma_runtime.librkllm.trial import LIMIT_S, try_library
from rk_gemma_runtime.librkllm.verdict import ANOTHER_API, VARIABLE, Verdict, decide

if TYPE_CHECKING:
    from rk_gemma_runtime.librkllm.elf import Elf
    from rk_gemma_runtime.librkllm.releases import Release
    from rk_gemma_runtime.librkllm.signals import Signal
    from rk_gemma_runtime.librkllm.trial import Trial


@dataclass(frozen=True)
class Identity:
    """What a librkllmrt.so is. `problem` is why it cannot be used here, or None; then `layout` is given.
    `identified_by`: the signals that led to it. `missing`: functions of the layout that the file does not export.
    `known_release`: the release whose unmodified file this is. `conflict`: how signals contradict each other."""

    path: Path
    machine: str
    version: str | None
    layout: str | None
    identified_by: tuple[str, ...]
    missing: tuple[str, ...]
    known_release: str | None
    signals: tuple[Signal, ...]
    conflict: str | None
    problem: LibraryError | None
    forced: bool = False
    second_hand: bool = False
    notes: tuple[str, ...] = ()
    """What a forced layout overrides."""


def identify(
    path: Path | str,
    layout: str | None = None,
    *,
    releases: tuple[Release, ...] = RELEASES,
    limit_s: float = LIMIT_S,
) -> Identity:
    """Identify a library; `layout` forces one, by its name or a release's. Blocks for a moment, `limit_s` at most;
    with 0 the library is only read, never run, and so not found usable. Raises LibraryError if the file is
    not a shared library or `layout` is unknown."""
    path = Path(path)
    forced = None if layout is None else find_layout(layout)
    with open_file(path) as file:
        elf = read_library(path, file)
        try:
            content = read_content(file, releases)
        except OSError as error:
            raise fault(path, str(error.strerror).lower()) from None
    barred = obstacle(path, elf) or _another_api(path, elf)
    certain = _certain(content)
    trial = try_library(path, limit_s) if barred is None and limit_s > 0 else None
    # The structs of an unmodified release are known; the trial only tells whether it loads here.
    found = _identity(path, elf, content, None if certain else trial)
    refused = explain(path, trial.refused) if trial is not None and trial.refused else None
    if forced is not None:
        return _forced(found, forced, elf, barred or refused, trial)
    # Report an unsupported version before a missing dependency.
    unknown = found.problem if found.version and s.layout_of(found.version) is None else None
    unconfirmed = None if certain else _unconfirmed(path, trial)
    problem = barred or unknown or refused or unconfirmed or found.problem
    return replace(found, problem=problem)


def find_layout(name: str) -> str:
    """Find the layout of that name, or of that release. Raises LibraryError."""
    found = name if name in LAYOUTS else s.layout_of(name)
    if found is None:
        text = f"{VARIABLE} or --layout: unknown layout {name[:40]!r}; choose one of {', '.join(LAYOUTS)}"
        raise LibraryError(text, NpuReason.BAD_LIBRARY)
    return found


def _identity(path: Path, elf: Elf, content: Content, trial: Trial | None) -> Identity:
    signals = (
        s.string_signal(content),
        s.literal_signal(content),
        s.blob_signal(content),
        s.symbols_signal(elf.exports),
        s.defaults_signal(trial),
    )
    verdict = decide(content, signals)
    release = content.release
    return Identity(
        path=path,
        machine=elf.machine,
        version=_version(content, verdict),
        layout=verdict.layout,
        identified_by=verdict.by,
        missing=_missing(verdict.layout, elf),
        known_release=release.version if release else None,
        signals=signals,
        conflict=verdict.conflict,
        problem=fault(path, verdict.refusal) if verdict.refusal else None,
        second_hand=_second_hand(verdict.layout) or bool(release and release.second_hand),
    )


def _version(content: Content, verdict: Verdict) -> str | None:
    if content.versions:
        return content.versions[0] if len(content.versions) == 1 else None
    if content.release:
        return content.release.version
    literals = [text for text in content.literals if s.layout_of(text) == verdict.layout]
    return literals[0] if verdict.layout and len(literals) == 1 else None


def _missing(layout: str | None, elf: Elf) -> tuple[str, ...]:
    return tuple(f for f in LAYOUTS[layout].functions if f not in elf.exports) if layout else ()


def _second_hand(layout: str | None) -> bool:
    return layout is not None and LAYOUTS[layout].second_hand


def _certain(content: Content) -> bool:
    """An unmodified release, known at first hand: its structs were measured."""
    release = content.release
    return release is not None and not release.second_hand and s.layout_of(release.version) is not None


def _another_api(path: Path, elf: Elf) -> LibraryError | None:
    if any(name.startswith("rknn_") for name in elf.exports) and "rkllm_init" not in elf.exports:
        return fault(path, "librknnrt.so, for .rknn models; librkllmrt.so is another library")
    if "rkllm_init" in elf.exports and s.SINCE_1_1 not in elf.exports:
        return fault(path, f"it exports no {s.SINCE_1_1}; {ANOTHER_API}")
    return _incapable(path, elf)


def _incapable(path: Path, elf: Elf) -> LibraryError | None:
    lacks = [f for f in s.NEEDED if f not in elf.exports]
    if len(lacks) == len(s.NEEDED):
        return fault(path, "a library, but not librkllmrt: it exports no rkllm_init")
    return fault(path, f"does not export {', '.join(lacks)}, which is needed") if lacks else None


def _unconfirmed(path: Path, trial: Trial | None) -> LibraryError | None:
    if trial is None:
        return fault(path, "its layout is not confirmed: it was not tried")
    if trial.failure:
        return fault(path, f"its layout is not confirmed, so it is not called: {trial.failure}")
    return None


def _forced(found: Identity, layout: str, elf: Elf, barred: LibraryError | None, trial: Trial | None) -> Identity:
    """Forcing wins over doubt and contradiction, not over what the loader will refuse anyway."""
    against = [f"{x.says}, so {s.among(x.layouts) if x.layouts else 'none'}" for x in found.signals
               if layout not in x.layouts]  # fmt: skip
    return replace(
        found,
        layout=layout,
        identified_by=("forced",),
        missing=_missing(layout, elf),
        problem=barred,
        forced=True,
        second_hand=_second_hand(layout),
        notes=(*against, *([trial.failure] if trial and trial.failure else [])),
    )
