"""From signals to one layout, or to the sentence that says why there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.signals import ALL, among, layout_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rk_gemma_runtime.librkllm.content import Content
    from rk_gemma_runtime.librkllm.signals import Signal

VARIABLE = "RK_GEMMA_LIBRKLLMRT_LAYOUT"
OLDEST = next(iter(LAYOUTS.values())).releases[0]
NEWEST = list(LAYOUTS.values())[-1].releases[-1]
ANOTHER_API = (
    f"librkllmrt 1.0.x is another API (rkllm_run takes text, parameters go by value) and has no Gemma 2; use {OLDEST}"
    " or later"
)


@dataclass(frozen=True)
class Verdict:
    """`layout` with the names of the signals `by` which it was found, or a `refusal`. `conflict`: the refusal, where
    signals contradict each other."""

    layout: str | None = None
    by: tuple[str, ...] = ()
    refusal: str = ""
    conflict: str | None = None


def decide(content: Content, signals: tuple[Signal, ...]) -> Verdict:
    """Decide: every signal allows some layouts; the answer is what all of them allow, if that is one."""
    if len(content.versions) > 1:
        return _conflict(f"it holds {len(content.versions)} version strings: {', '.join(content.versions)}")
    named = content.versions[0] if content.versions else content.release.version if content.release else None
    if named is not None and layout_of(named) is None:
        return Verdict(refusal=_unknown(named, signals))
    strong = [s for s in signals if not s.weak]
    left = _common(strong)
    literal = next(s for s in signals if s.weak)
    if not left:
        return _conflict(_evidence(strong))
    if _lied_to(strong, literal):
        return _conflict(_evidence([*strong, literal]))
    by = tuple(s.name for s in strong if s.tells)
    if len(left) > 1 and literal.tells and len(_common([*strong, literal])) == 1:
        left, by = _common([*strong, literal]), (*by, literal.name)
    if len(left) == 1:
        return Verdict(left[0], by)
    return Verdict(refusal=f"it may have layout {among(left)}, and nothing in it tells which; {_force(left)}")


def _common(signals: Iterable[Signal]) -> tuple[str, ...]:
    sets = [set(s.layouts) for s in signals]
    return tuple(name for name in ALL if all(name in s for s in sets))


def _lied_to(strong: list[Signal], literal: Signal) -> bool:
    """Whether the string alone chooses among what the rest leaves, and the file's own literal chooses otherwise."""
    string = next(s for s in strong if s.name == "string")
    rest = _common([*(s for s in strong if s is not string), literal])
    return string.tells and literal.tells and bool(rest) and not set(rest) & set(string.layouts)


def _conflict(why: str) -> Verdict:
    text = f"its layout cannot be told, so it is not called: {why}"
    return Verdict(refusal=f"{text}; {_force(())}", conflict=text)


def _evidence(signals: Iterable[Signal]) -> str:
    return "; ".join(f"{s.says}, so {among(s.layouts) if s.layouts else 'none'}" for s in signals if s.tells)


def _unknown(version: str, signals: tuple[Signal, ...]) -> str:
    numbers = [int(n) for n in re.findall(r"\d+", version)[:2]]
    if numbers < [1, 1]:
        return f"it is librkllmrt {version}; {ANOTHER_API}"
    rest = [s for s in signals if s.name in {"symbols", "defaults"}]
    evidence = "; ".join(f"{s.says}, as {among(s.layouts)}" for s in rest if s.tells and s.layouts)
    text = f"librkllmrt {version} is not known to this rk-gemma ({OLDEST} to {NEWEST}), so it is not called"
    return "; ".join(filter(None, [text, evidence, _force(_common(rest))]))


def _force(layouts: tuple[str, ...]) -> str:
    return f"to try it all the same, set {VARIABLE}={layouts[-1] if layouts else 'LAYOUT'}"
