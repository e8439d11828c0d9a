"""`rk-gemma lib [PATH]`: which librkllmrt.so is this, and can it be used here?

The one verb that looks into the binding: nothing is loaded into this process, the probe is another one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.errors import LibraryError, UsageError
from rk_gemma_runtime.printable import one_line

if TYPE_CHECKING:
    from rk_gemma_runtime.librkllm.identify import Identity


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("lib")(lib_command)


def lib_command(
    path: Annotated[str, typer.Argument(metavar="[FILE]", help="A librkllmrt.so; without it the one in use.")] = "",
    layout: Annotated[str, typer.Option("--layout", metavar="NAME", help="Take this layout, such as 1.3.0.")] = "",
    as_json: o.Json = False,
) -> None:
    """Say which librkllmrt.so this is and whether it can be used here."""
    try:
        identity = _identify(path, layout)
    except LibraryError as error:
        if as_json:
            print(json.dumps({**_nothing(), "path": path or None, **_problem(error)}))
        raise
    if as_json:
        print(json.dumps(_tree(identity)))
    else:
        print("\n".join(_lines(identity)))
    if identity.problem is not None:
        raise identity.problem


def _identify(path: str, layout: str) -> Identity:
    from rk_gemma_runtime.librkllm.identify import find_layout, identify
    from rk_gemma_runtime.librkllm.library import find, layout_from_environment

    if layout:
        try:
            find_layout(layout)
        except LibraryError as error:
            raise UsageError(str(error)) from error
    return identify(path or find(), layout or layout_from_environment())


def _nothing() -> dict[str, Any]:
    """Return the keys of an answer about a file that is not a library."""
    empty = dict.fromkeys(("version", "layout", "machine", "known_release", "conflict"))
    return {
        **empty,
        "identified_by": [],
        "missing": [],
        "signals": [],
        "forced": False,
        "notes": [],
        "second_hand": False,
    }


def _problem(error: LibraryError | None) -> dict[str, Any]:
    return {"problem": str(error) if error else None, "reason": error.reason.value if error else None}


def _tree(identity: Identity) -> dict[str, Any]:
    signals = [{"name": s.name, "says": s.says, "layouts": list(s.layouts)} for s in identity.signals]
    return {
        "path": str(identity.path),
        "version": identity.version,
        "layout": identity.layout,
        "identified_by": list(identity.identified_by),
        "missing": list(identity.missing),
        "known_release": identity.known_release,
        "machine": identity.machine,
        "signals": signals,
        "conflict": identity.conflict,
        "forced": identity.forced,
        "notes": list(identity.notes),
        "second_hand": identity.second_hand,
        **_problem(identity.problem),
    }


def _lines(identity: Identity) -> list[str]:
    layout = identity.layout or "not known"
    layout += " (as asked for)" if identity.forced else ""
    layout += " (second-hand: its header was not seen)" if identity.second_hand else ""
    rows = [
        ("path", str(identity.path)),
        ("machine", identity.machine),
        ("version", identity.version or "not known"),
        ("layout", layout),
        ("found by", ", ".join(identity.identified_by) or "nothing"),
        ("release", f"{identity.known_release}, unmodified" if identity.known_release else "none known by content"),
        ("lacks", ", ".join(identity.missing) or "nothing"),
        ("usable", "no" if identity.problem else "yes"),
        *(("overrides", note) for note in identity.notes),
        *((f"  {s.name}", f"{s.says} ({_allowed(s.layouts, s.tells)})") for s in identity.signals),
    ]
    return [one_line(f"{name:<11}{text}") for name, text in rows]


def _allowed(layouts: tuple[str, ...], tells: bool) -> str:
    return ", ".join(layouts) or "no layout" if tells else "any layout"
