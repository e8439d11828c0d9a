"""`rk-gemma doctor [BUNDLE]`: can this board answer, and if not, why?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.talk import say


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor")(doctor_command)


def doctor_command(
    bundle: Annotated[str, typer.Argument(metavar="[BUNDLE]", help="Hold this bundle against the board, too.")] = "",
    probe: Annotated[bool, typer.Option("--probe", help="Measure what the driver can map (10 s, RAM).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Probe although others use the NPU.")] = False,
    root: Annotated[str, typer.Option("--root", metavar="DIR|TAR", help="Look at another root, or a capture.")] = "",
    board: Annotated[str, typer.Option("--board", metavar="PROFILE", help="Look at a described board.")] = "",
    capture: Annotated[str, typer.Option("--capture", metavar="FILE.tar", help="Keep what was read.")] = "",
    librkllmrt: o.Librkllmrt = "",
    as_json: o.Json = False,
) -> None:
    """Check board, driver, memory, library and CPU; say what is wrong and what to do."""
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.doctor import board as boards
    from rk_gemma_runtime.doctor import capture as captures
    from rk_gemma_runtime.doctor.readings import read_readings
    from rk_gemma_runtime.doctor.report import examine

    opened = Bundle.open(bundle) if bundle else None
    with boards.open_board(boards.Asked(root, board, librkllmrt)) as (place, live):
        readings = read_readings(place, live)
        if probe:
            boards.probe(place, readings, live, force)
            readings = read_readings(place, live)
        report = examine(readings, opened)
        if capture:
            captures.write(place, Path(capture))
    print(json.dumps(report.tree()) if as_json else "\n".join(report.lines()))
    if capture:
        say(f"{capture}: what was read, without names, serial numbers and addresses")
    raise typer.Exit(report.exit)
