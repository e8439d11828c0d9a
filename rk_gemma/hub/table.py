"""What `rk-gemma pull --check` shows: all that is known before the download, with where each value is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.planning.matrix import RAM_GB
from rk_gemma.planning.sources import is_assumed, plain_board
from rk_gemma_runtime.memory.dtypes import find_dtype
from rk_gemma_runtime.memory.models import of_bundle
from rk_gemma_runtime.memory.plan import make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma.hub.order import Order
    from rk_gemma.pack.recipe import Recipe
    from rk_gemma_runtime.board import Board

GB = 1e9


def check_tree(order: Order, board: Board) -> dict[str, Any]:
    """Return it as plain data: rows of text by name, in the order they are shown."""
    repository, recipe = order.repository, order.recipe
    rows: dict[str, Any] = {
        "repository": f"{repository.id} at {repository.commit[:12]}" + (" (gated)" if repository.gated else ""),
        "files": [f"{file.path} ({file.size / GB:.2f} GB) as {name}" for file, name in order.items],
        "download": f"{order.size / GB:.2f} GB",
    }
    if recipe is not None:
        rows |= _recipe_rows(recipe)
        rows["board"] = [*_boards(recipe, board)]
    rows["tokenizer"] = order.given.vocabulary.origin if order.given.vocabulary else "none: token ids only"
    rows["notes"] = order.notes
    rows["missing"] = str(order.missing) if order.missing else None
    return rows


def check_lines(tree: dict[str, Any]) -> Iterator[str]:
    """Write it for people."""
    for name, value in tree.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield f"{name:<12}{one}"


def _recipe_rows(recipe: Recipe) -> dict[str, Any]:
    manifest, npu = recipe.manifest, recipe.npu
    model = manifest.model
    rows: dict[str, Any] = {
        "model": f"{model.family} {model.size} {model.variant or 'base'}",
        "licence": model.licence,
    }
    if npu is not None:
        rows |= {
            "toolkit": str(npu.toolkit), "platform": str(npu.platform), "dtype": str(npu.dtype),
            "limit": str(npu.max_context), "npu cores": str(npu.cores),
            "library": f"needs librkllmrt >= {npu.toolkit.value}" if npu.toolkit.value else "toolkit not known",
        }  # fmt: skip
    if manifest.cpu:
        rows["cpu"] = manifest.cpu.quant
    return rows | {"context": manifest.context, "template": manifest.template}


def _boards(recipe: Recipe, board: Board) -> Iterator[str]:
    manifest = recipe.manifest
    shape, npu = of_bundle(manifest), manifest.npu
    dtype = find_dtype(npu.dtype, shape) if shape and npu else None
    if npu is None:
        return
    if shape is None or dtype is None:
        yield "cannot be planned: no known shape or weight type"
        return
    boards = [(f"{ram} GB", plain_board(ram)) for ram in RAM_GB] if is_assumed(board) else [(board.title, board)]
    request = Request(shape, dtype, manifest.context, limit=npu.max_context, platform=npu.platform)
    for label, one in boards:
        plan = make_plan(request, one)
        reason = f": {plan.reasons[0].text}" if plan.reasons else ""
        yield f"{label}: {plan.verdict}, {plan.speed.decode:.1f} tokens/s predicted{reason}"
