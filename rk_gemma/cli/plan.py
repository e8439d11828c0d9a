"""`rk-gemma plan`: does it fit this board, why not, and what would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.memory.plan import Plan


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("plan")(plan_command)


def plan_command(
    model: Annotated[
        str,
        typer.Argument(metavar="[MODEL|BUNDLE|CONFIG]", help="gemma-2-2b, a bundle, a config.json; none: a table."),
    ] = "",
    context: Annotated[
        int, typer.Option(min=0, help=f"Tokens of prompt and answer; 0: the bundle's, else {DEFAULT_CONTEXT}.")
    ] = 0,
    dtype: Annotated[str, typer.Option(help="w8a8, w8a8_g128, w8a8_g256, w8a8_g512 or fp16.")] = "",
    profile: Annotated[str, typer.Option("--board", metavar="PROFILE", help="A described board.")] = "",
    ram: Annotated[float | None, typer.Option(metavar="GB", help="RAM of the board.")] = None,
    driver: Annotated[str, typer.Option(metavar="X.Y.Z", help="Version of its rknpu driver, or none.")] = "",
    root: Annotated[str, typer.Option(metavar="DIR", help="A capture of `rk-gemma doctor --capture`.")] = "",
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="MODEL", help="A model that is already there; again for more."),
    ] = None,
    domain: Annotated[int, typer.Option("--npu-domain", min=0, max=DOMAINS - 1, help="First IOMMU domain.")] = 0,
    release: Annotated[
        str,
        typer.Option(
            "--runtime", metavar="X.Y.Z", help="Release of librkllmrt; none: the one that is here, else the newest."
        ),
    ] = "",
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it (needs the plot extra).")] = None,
    as_json: o.Json = False,
) -> None:
    """Predict memory, placement and speed of a model on a board, before anything is loaded."""
    from rk_gemma.planning import sources

    board = sources.board_of(profile, root, ram, driver)
    if not model:
        odd = [k for k, v in {"--plot": plot, "--with": others, "--npu-domain": domain, "--ram": ram}.items() if v]
        _table(context or DEFAULT_CONTEXT, dtype or "w8a8", board, bool(profile or root), odd, as_json)
        return
    if plot is not None:
        with extra_needed("plot"):
            import matplotlib  # noqa: F401
    from rk_gemma_runtime.memory.plan import make_plan

    for other in others or ():
        board = _beside(board, other)
    if not release and not (profile or root or ram or driver):
        release = sources.library_here()
    plan = make_plan(sources.request_of(model, context, dtype, domain, release), board)
    if sources.is_assumed(board):
        say(f"no board was named: {board.title} is assumed (--board, --ram)")
    _show(plan, as_json)
    if plot is not None:
        from rk_gemma.planning.plot import write_plot

        write_plot(plan, plot)
        say(f"{plot}: written")


def _beside(board: Board, other: str) -> Board:
    """Load the other model in the first domain that takes it; returns the board after that. Raises UsageError."""
    from rk_gemma.planning.sources import request_of
    from rk_gemma_runtime.memory.fit import with_holds
    from rk_gemma_runtime.memory.plan import NO, make_plan

    plan = make_plan(request_of(other, 0, ""), board)
    if plan.verdict == NO and plan.other_domain is None:
        raise UsageError(f"--with {other}: it does not load on this board itself: {plan.reasons[0].text}")
    return with_holds(board, plan.need, plan.other_domain or 0)


def _show(plan: Plan, as_json: bool) -> None:
    from rk_gemma.planning.picture import plan_lines, plan_tree

    print(json.dumps(plan_tree(plan)) if as_json else "\n".join(plan_lines(plan)))


def _table(context: int, dtype: str, board: Board, one: bool, odd: list[str], as_json: bool) -> None:
    from rk_gemma.planning.matrix import matrix, matrix_lines, matrix_tree

    if odd:
        raise UsageError(f"{odd[0]} needs a MODEL; the table has every model and every size of board")
    plans = matrix(context, dtype, board, one)
    print(json.dumps(matrix_tree(plans)) if as_json else "\n".join(matrix_lines(plans)))
