"""What `rk-gemma pull --check` shows: all that is known before the download, with where each value is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.planning.matrix import RAM_GB
from rk_gemma.planning.sources import is_assumed, plain_board
from rk_gemma_runtime.memory.dtypes import find_dtype
from rk_gemma_runtime.memory.models import of_bundle
from rk_gemma_runtime.memory.plan import CPU_WORK_BYTES, make_plan
from rk_gemma_runtime.memory.request import Request
from rk_gemma_runtime.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma.hub.order import Order
    from rk_gemma.hub.repository import Repository
    from rk_gemma.pack.npupart import NpuFacts
    from rk_gemma_runtime.board import Board
    from rk_gemma_runtime.bundle import Manifest

GB = 1e9


def check_tree(order: Order, board: Board) -> dict[str, Any]:
    """Return it as plain data: rows of text by name, in the order they are shown."""
    repository = order.repository
    rows: dict[str, Any] = {
        "repository": f"{repository.id} at {repository.commit[:12]}" + (" (gated)" if repository.gated else ""),
        "files": [f"{file.path} ({file.size / GB:.2f} GB) as {name}" for file, name in order.items],
        "download": f"{order.size / GB:.2f} GB",
    }
    if order.npu is not None:
        rows |= _npu_rows(order.npu)
    if order.manifest is not None:
        rows |= manifest_rows(order.manifest, sum(file.size for file, _ in order.items), board)
    words = order.given.vocabulary
    rows["tokenizer"] = words.origin if words else "missing" if order.missing else "none: token ids only"
    rows["notes"] = order.notes
    rows["missing"] = str(order.missing) if order.missing else None
    return rows


def bundle_tree(repository: Repository, manifest: Manifest, board: Board) -> dict[str, Any]:
    """Return the same for a bundle that is published."""
    size, npu = sum(facts.bytes for facts in manifest.files.values()), manifest.npu
    return {
        "repository": f"{repository.id} at {repository.commit[:12]}, a bundle",
        "files": [f"{name} ({facts.bytes / GB:.2f} GB)" for name, facts in manifest.files.items()],
        "download": f"{size / GB:.2f} GB",
        "library": f"needs {npu.library}" if npu and npu.library else None,
        **manifest_rows(manifest, size, board),
        "tokenizer": manifest.tokenizer or "none: token ids only",
        "notes": [],
        "missing": None,
    }


def check_lines(tree: dict[str, Any]) -> Iterator[str]:
    """Write it for people. What a hub says cannot break a line, nor write to the terminal otherwise."""
    for name, value in tree.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield one_line(f"{name:<12}{one}")


def _npu_rows(npu: NpuFacts) -> dict[str, Any]:
    return {
        "toolkit": str(npu.toolkit), "platform": str(npu.platform), "dtype": str(npu.dtype),
        "limit": str(npu.max_context), "npu cores": str(npu.cores),
        "library": f"needs librkllmrt >= {npu.toolkit.value}" if npu.toolkit.value else "toolkit not known",
    }  # fmt: skip


def manifest_rows(manifest: Manifest, size: int, board: Board) -> dict[str, Any]:
    """Show the model and which boards it fits; `size` is that of all weights."""
    model = manifest.model
    rows: dict[str, Any] = {
        "model": f"{model.family} {model.size} {model.variant or 'base'}", "licence": model.licence,
        "context": manifest.context, "template": manifest.template,
    }  # fmt: skip
    if manifest.cpu:
        rows["cpu"] = manifest.cpu.quant
    boards = [(f"{ram} GB", plain_board(ram)) for ram in RAM_GB] if is_assumed(board) else [(board.title, board)]
    rows["board"] = [f"{label}: {_fits(manifest, size, one)}" for label, one in boards]
    return rows


def _fits(manifest: Manifest, size: int, board: Board) -> str:
    shape, npu = of_bundle(manifest), manifest.npu
    if npu is None:
        free = board.memory.available
        need = size + (shape.kv_bytes_per_token * manifest.context if shape else 0) + CPU_WORK_BYTES
        return (
            "memory not known" if free is None else "fits on the CPU" if need <= free else "no: too large for its RAM"
        )
    dtype = find_dtype(npu.dtype, shape) if shape else None
    if shape is None or dtype is None:
        return "cannot be planned: no known shape or weight type"
    request = Request(shape, dtype, manifest.context, limit=npu.max_context, platform=npu.platform)
    plan = make_plan(request, board)
    reason = f": {plan.reasons[0].text}" if plan.reasons else ""
    return f"{plan.verdict}, {plan.speed.decode:.1f} tokens/s predicted{reason}"
