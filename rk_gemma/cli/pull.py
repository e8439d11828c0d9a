"""`rk-gemma pull REPO -o DIR`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rk_gemma.cli import pack as p
from rk_gemma.cli.stopping import told_when_stopped
from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.hub.http import Patience
    from rk_gemma.hub.order import Asked, Order
    from rk_gemma.pack.wishes import Wishes
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Bundle, Manifest


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("pull")(pull_command)


def pull_command(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME[@REV]", help="A repository on the hub.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Bundle to write.")] = None,
    file: Annotated[str, typer.Option("--file", help="Which of several .rkllm or GGUF files.")] = "",
    cpu: Annotated[str, typer.Option("--cpu", metavar="REPO[:QUANT]", help="A GGUF repository for the CPU.")] = "",
    quant: Annotated[str, typer.Option("--quant", help="GGUF type such as Q4_0; without it as fits the board.")] = "",
    tokenizer: Annotated[str, typer.Option(help="tokenizer.model: a file or a repository; none: ids only.")] = "",
    check: Annotated[bool, typer.Option("--check", help="All but the download: what it is and what fits.")] = False,
    board: Annotated[str, typer.Option("--board", metavar="PROFILE", help="A described board.")] = "",
    ram: Annotated[float | None, typer.Option(metavar="GB", help="RAM of the board.")] = None,
    family: p.Family = "", size: p.Size = "", variant: p.Variant = "", context: p.Context = 0, dtype: p.Dtype = "",
    cores: p.Cores = 0, toolkit: p.Toolkit = "", template: p.Template = "auto", licence: p.Licence = "",
    force: p.Force = False, as_json: o.Json = False,
) -> None:  # fmt: skip
    """Make a bundle from what is on the hub: .rkllm files, GGUF files, or a bundle."""
    if output is None and not check:
        raise UsageError("give -o DIR, or --check to look only")
    if as_json and not check:
        raise UsageError("--json goes with --check")
    with extra_needed("hub"):
        from rk_gemma.hub.http import Patience
        from rk_gemma.hub.order import Asked
        from rk_gemma.pack.wishes import Wishes
        from rk_gemma.planning.sources import board_of

        wishes = Wishes(family, size, variant, context, dtype, cores, toolkit, template, licence, force)
        patience = Patience(say=say)
        asked = Asked(repository, file, cpu, quant, tokenizer)
        place = board_of(board, "", ram, "")
        if output is None or check:
            _check(asked, wishes, place, patience, as_json)
            return
        with told_when_stopped() as on_stop:
            bundle = _pull(asked, wishes, place, patience, output, on_stop)
    total = sum(f.bytes for f in bundle.manifest.files.values())
    say(f"{output}: {', '.join(sorted(bundle.manifest.files))} ({total / 1e6:.1f} MB)")


def _check(asked: Asked, wishes: Wishes, board: Board, patience: Patience, as_json: bool) -> None:
    from rk_gemma.hub import pull, table
    from rk_gemma.hub.repository import open_repository, parse_repository

    repository, missing = open_repository(*parse_repository(asked.source), patience), None
    if pull.own_bundle(repository):
        _refuse_wishes(repository.id, asked, wishes)
        tree = table.bundle_tree(repository, pull.published(repository, patience), board)
    else:
        order = _order(asked, wishes, board, patience)
        tree, missing = table.check_tree(order, board), order.missing
    print(json.dumps(tree, ensure_ascii=False) if as_json else "\n".join(table.check_lines(tree)))
    if missing is not None:
        raise missing


def _order(asked: Asked, wishes: Wishes, board: Board, patience: Patience) -> Order:
    from rk_gemma.hub.choose import ManyFiles
    from rk_gemma.hub.order import make_order

    try:
        return make_order(asked, wishes, board, patience)
    except ManyFiles as error:
        for line in error.lines:
            say(line)
        raise


def _pull(
    asked: Asked, wishes: Wishes, board: Board, patience: Patience, target: Path, on_stop: Callable[[str], None]
) -> Bundle:
    from rk_gemma.hub import pull
    from rk_gemma.hub.repository import open_repository, parse_repository
    from rk_gemma.pack.library import check_library

    there = pull.standing(target)
    repository = open_repository(*parse_repository(asked.source), patience)
    if pull.own_bundle(repository):
        manifest = pull.published(repository, patience)
        _refuse_wishes(repository.id, asked, wishes)
        check_library(repository.id, manifest.npu, wishes.force)
        hashes = {name: facts.sha256 for name, facts in manifest.files.items()}
        return _known(there, manifest, hashes) or pull.carry_over(repository, manifest, target, patience, on_stop)
    order = _order(asked, wishes, board, patience)
    for note in order.notes:
        say(f"note: {note}")
    if order.recipe is None:
        assert order.missing is not None
        raise order.missing
    check_library(repository.id, order.recipe.manifest.npu, wishes.force)
    hashes = pull.hashes_of(order)
    return _known(there, order.recipe.manifest, hashes) or pull.carry_out(order, target, patience, on_stop)


def _refuse_wishes(repository: str, asked: Asked, wishes: Wishes) -> None:
    """A bundle is taken as it is."""
    given = (asked.file, asked.cpu, asked.quant, asked.tokenizer)
    if any(given) or replace(wishes, force=False) != type(wishes)():
        raise UsageError(f"{repository}: a bundle, which is taken as it is; leave out all options but -o and --force")


def _known(there: Bundle | None, wanted: Manifest, hashes: dict[str, str]) -> Bundle | None:
    """The bundle that is there already, if it is the wanted one; None if nothing is there."""
    from rk_gemma.hub.pull import check_unchanged

    if there is not None:
        check_unchanged(there, wanted, hashes)
        say(f"{there.directory}: already there, unchanged")
    return there
