"""`rk-gemma pack`: a bundle from files at hand."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rk_gemma import __version__
from rk_gemma.export.progress import reporter
from rk_gemma.export.staging import Staging, refuse_existing, staging
from rk_gemma.pack.files import (
    check_loras,
    cpu_input,
    first_gguf,
    npu_input,
    sort_files,
    tokens_at_hand,
    vocabulary_at_hand,
)
from rk_gemma.pack.library import check_library
from rk_gemma.pack.npupart import FILE
from rk_gemma.pack.place import check_way, place, remove_moved
from rk_gemma.pack.recipe import Ingredients, make_recipe
from rk_gemma.pack.room import check_room
from rk_gemma_runtime.bundle import Adapter, Bundle
from rk_gemma_runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.export.progress import Step
    from rk_gemma.pack.files import AtHand
    from rk_gemma.pack.vocabulary import Vocabulary
    from rk_gemma.pack.wishes import Wishes

IDS_ONLY = "no tokenizer: give --tokenizer FILE, or --tokenizer none for a bundle that takes and gives token ids"


def pack(
    paths: list[Path], target: Path, wishes: Wishes, way: str = "link", ids_only: bool = False,
    warn: Callable[[str], None] = lambda line: None, on_stop: Callable[[str], None] = lambda line: None,
) -> Bundle:  # fmt: skip
    """Make the bundle and open it; `on_stop` as `staging` takes it. Raises InputError, BundleError, UsageError; then
    nothing is left, and nothing was moved."""
    wishes.check()
    check_way(way)
    refuse_existing(target)
    with ExitStack() as stack:
        found = sort_files(paths, stack)
        own = tokens_at_hand(found)
        if ids_only and found.tokenizer:
            raise UsageError(f"{found.tokenizer} and --tokenizer none: leave one out")
        vocabulary = None if ids_only else vocabulary_at_hand(found, own)
        if vocabulary is None and not ids_only:
            raise UsageError(f"{found.paths[0]}: {IDS_ONLY}")
        given = Ingredients(
            npu_input(found), cpu_input(found), vocabulary, own, _adapters(list(found.loras)), found.paths[0].stem
        )
        recipe = make_recipe(given, wishes)
        check_loras(found)
    check_library(str(paths[0]), recipe.manifest.npu, wishes.force)
    for note in recipe.notes:
        warn(note)
    items = _items(found)
    check_room(target, [path for path, _ in items], way)
    key = json.dumps([__version__, [[name, _stamp(path)] for path, name in items], recipe.manifest.dump()])
    with staging(target, key, on_stop) as stage, reporter() as step:
        _fill(stage, step, items, vocabulary, way)
        stage.commit(replace(recipe.manifest, files=dict(stage.files)))
    bundle = Bundle.open(target)
    if way == "move":
        remove_moved([path for path, _ in items])
    return bundle


def _items(found: AtHand) -> list[tuple[Path, str]]:
    """Each weight file with its name in the bundle."""
    first = first_gguf(found)
    split = len(found.cpu) > 1
    return [
        *([(found.npu[0], FILE)] if found.npu else []),
        *((path, path.name if split else "model.gguf") for path in (sorted(found.cpu) if first else [])),
        *((path, path.name) for path in found.loras),
    ]


def _adapters(paths: list[Path]) -> tuple[Adapter, ...]:
    names = [path.stem for path in paths]
    if len(set(names)) != len(names):
        raise InputError("two LoRA files have one name")
    return tuple(Adapter(path.stem, path.name, None, path.name, 0) for path in paths)


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns]


def _fill(stage: Staging, step: Step, items: list[tuple[Path, str]], vocabulary: Vocabulary | None, way: str) -> None:
    for path, name in items:
        stage.add(name, partial(_bring, step, path, way))
    if vocabulary is not None:
        stage.add("tokenizer.model", lambda target: _put(target, vocabulary.data))


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _bring(step: Step, source: Path, way: str, target: Path) -> str:
    return place(source, target, way, step(target.name, source.stat().st_size))
