"""What each sign of a library's version allows. None of them knows of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.defaults import Image, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rk_gemma_runtime.librkllm.content import Content
    from rk_gemma_runtime.librkllm.trial import Trial

ALL = tuple(LAYOUTS)
FUNCTIONS = frozenset(f for layout in LAYOUTS.values() for f in layout.functions)
# Without these nothing can be generated and stopped.
NEEDED = ("rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_abort", "rkllm_is_running", "rkllm_destroy")
SINCE_1_1 = "rkllm_run_async"


@dataclass(frozen=True)
class Signal:
    """One sign: its name, what it says (a clause), and the layouts that it allows, oldest first. A weak one only
    chooses among what the others leave."""

    name: str
    says: str
    layouts: tuple[str, ...] = ALL
    weak: bool = False

    @property
    def tells(self) -> bool:
        """Whether it rules out anything."""
        return self.layouts != ALL


def layout_of(version: str) -> str | None:
    """Find the layout of a release; None if the release is not known."""
    return next((name for name, layout in LAYOUTS.items() if layout.covers(version)), None)


def among(layouts: Iterable[str]) -> str:
    """Write "1.2.1, 1.3.0 or 1.3.1"."""
    *most, last = layouts
    return f"{', '.join(most)} or {last}" if most else last


def string_signal(content: Content) -> Signal:
    """Collect every version string in the file. One that is not known allows nothing."""
    if not content.versions:
        return Signal("string", "it holds no RKLLM SDK version string")
    named = {layout_of(v) for v in content.versions}
    return Signal("string", f"its string says {' and '.join(content.versions)}", tuple(n for n in ALL if n in named))


def literal_signal(content: Content) -> Signal:
    """Collect bare release numbers; other libraries inside the file have such texts, too, so it is weak."""
    known = [text for text in content.literals if layout_of(text)]
    if not known:
        return Signal("literal", "it holds no bare release number", weak=True)
    named = {layout_of(text) for text in known}
    return Signal("literal", f"a bare text says {among(known)}", tuple(n for n in ALL if n in named), weak=True)


def blob_signal(content: Content) -> Signal:
    """Compare the file as a whole with the releases that are known by content."""
    release = content.release
    if release is None:
        return Signal("blob", "its content is not a known release")
    source = " (by a second-hand report)" if release.second_hand else ""
    layout = layout_of(release.version)
    return Signal("blob", f"it is the unmodified release {release.version}{source}", (layout,) if layout else ())


def symbols_signal(exports: frozenset[str]) -> Signal:
    """Find the layouts with the fewest functions that have all those exported here. A function that is there says
    more than one that is not: a build may leave some out."""
    known = exports & FUNCTIONS
    if not known:
        return Signal("symbols", "it exports no function of librkllmrt", ())
    fits = {name: len(layout.functions) for name, layout in LAYOUTS.items() if known <= layout.functions.keys()}
    layouts = tuple(name for name, count in fits.items() if count == min(fits.values()))
    own = LAYOUTS[layouts[0]].functions.keys()
    smaller = {f for x in LAYOUTS.values() if len(x.functions) < len(own) for f in x.functions}
    present = sorted(known - smaller) if smaller else []
    absent = sorted(FUNCTIONS - own)
    marks = [*present[:1], *(f"no {f}" for f in absent[:1])]
    return Signal("symbols", f"it exports {' and '.join(marks)}", layouts)


def defaults_signal(trial: Trial | None) -> Signal:
    """Compare the struct that rkllm_createDefaultParam fills."""
    if trial is None or not trial.runs:
        return Signal("defaults", "it was not asked for its default parameters")
    image = Image.of(trial.runs)
    layouts = fitting(image)
    size = "stand at known places" if image.extent is None else f"have {image.extent} bytes"
    if layouts:
        return Signal("defaults", f"its default parameters {size}", layouts)
    return Signal("defaults", "its default parameters stand where those of no known layout do", ())
