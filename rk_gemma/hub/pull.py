"""`rk-gemma pull`: from an order to a bundle on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma.export.growing import SUFFIX
from rk_gemma.export.progress import reporter
from rk_gemma.export.staging import NOTES, staging
from rk_gemma.hub.download import Download
from rk_gemma.hub.files import in_cache
from rk_gemma.hub.vocabulary import fetch_bytes
from rk_gemma.pack.room import check_bytes
from rk_gemma_runtime.bundle import MANIFEST, Bundle, read_manifest
from rk_gemma_runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.export.progress import Step
    from rk_gemma.export.staging import Staging
    from rk_gemma.hub.files import RemoteFile
    from rk_gemma.hub.http import Patience
    from rk_gemma.hub.order import Order
    from rk_gemma.hub.repository import Repository
    from rk_gemma_runtime.bundle import FileFacts, Manifest

    Stopped = Callable[[str], None]

CHANGED = f"not as its {MANIFEST} says; it was changed after that"
KEY = json.dumps(["pull", 1])  # each file is held against its own hash, so any order may go on with any files


def standing(target: Path) -> Bundle | None:
    """Open what stands at the target; None if nothing does. Raises BundleError for anything but a bundle."""
    try:
        if not os.path.lexists(target):
            if not target.absolute().parent.is_dir():
                raise BundleError(f"{target.parent}: cannot write here: no such directory; create it first")
            target.absolute().parent.joinpath(f".{target.name}.partial").exists()  # a name that is too long
            return None
        return Bundle.open(target)
    except OSError as error:
        raise BundleError(f"{target}: cannot be written: {error.strerror}") from error
    except BundleError as error:
        if not os.path.lexists(target) or (target / MANIFEST).is_file():
            raise
        raise BundleError(f"{target}: exists; remove it or choose another directory") from error


def hashes_of(order: Order) -> dict[str, str]:
    """Return the sha256 of each file of the bundle that is known before the download."""
    known = {name: file.sha256 for file, name in order.items if file.sha256}
    words = order.given.vocabulary
    return known | ({"tokenizer.model": hashlib.sha256(words.data).hexdigest()} if words else {})


def check_unchanged(there: Bundle, wanted: Manifest, hashes: dict[str, str]) -> None:
    """Raise BundleError if the bundle that is there is not the wanted one: for another model, another commit, other
    files or options, and with the name of a file that was changed. Reads every file."""
    have, target = there.manifest, there.directory
    if have.model.source != wanted.model.source:
        raise BundleError(
            f"{target}: exists and holds {have.model.source or 'another model'}; choose another directory"
        )
    if have.model.revision != wanted.model.revision:
        now, then = wanted.model.revision[:12], have.model.revision[:12]
        raise BundleError(f"{target}: holds {then}, the hub has {now} now; remove it, or choose another directory")
    same = {name: facts.sha256 for name, facts in have.files.items() if name in hashes} == hashes
    if not same or replace(have, files={}, quality={}) != replace(wanted, files={}, quality={}):
        raise BundleError(
            f"{target}: exists and was made of other files or with other options; remove it, or choose another"
            " directory"
        )
    there.verify()


def carry_out(order: Order, target: Path, patience: Patience, on_stop: Stopped = lambda line: None) -> Bundle:
    """Download what the order needs and make the bundle. Blocks. Raises InputError, BundleError, HubError; what was
    downloaded stays for the next try."""
    assert order.recipe is not None
    vocabulary, manifest = order.given.vocabulary, order.recipe.manifest
    check_bytes(target, order.size, _there(target))
    with staging(target, KEY, on_stop, keep=True) as stage, reporter() as step:
        stage.keep_only({name for _, name in order.items})
        for file, name in order.items:
            _fetch(stage, step, file, name, patience)
        if vocabulary is not None:
            stage.add("tokenizer.model", lambda path: _put(path, vocabulary.data))
        stage.commit(replace(manifest, files=dict(stage.files)))
    return Bundle.open(target)


def own_bundle(repository: Repository) -> bool:
    """Whether the repository is a bundle of this product."""
    return any(file.path == MANIFEST for file in repository.files)


def published(repository: Repository, patience: Patience) -> Manifest:
    """Read the manifest of a repository that is a bundle. Raises InputError or HubError."""
    listed = next(file for file in repository.files if file.path == MANIFEST)
    with tempfile.TemporaryDirectory(prefix="rk-gemma-") as folder:
        scratch = Path(folder)
        (scratch / MANIFEST).write_bytes(fetch_bytes(listed, patience))
        try:
            manifest = read_manifest(scratch)
        except BundleError as error:
            raise InputError(str(error).replace(folder, repository.id)) from error
    return replace(manifest, model=replace(manifest.model, source=repository.id, revision=repository.commit))


def carry_over(
    repository: Repository, manifest: Manifest, target: Path, patience: Patience,
    on_stop: Stopped = lambda line: None,
) -> Bundle:  # fmt: skip
    """Download a bundle as it is; its manifest has a say about each file besides the hub. Raises as `carry_out`."""
    files = {name: _published_file(repository, name, facts) for name, facts in manifest.files.items()}
    check_bytes(target, sum(file.size for file in files.values() if in_cache(file) is None), _there(target))
    with staging(target, KEY, on_stop, keep=True) as stage, reporter() as step:
        stage.keep_only(set(files))
        for name, file in files.items():
            _fetch(stage, step, file, name, patience)
            if stage.files[name] != manifest.files[name]:
                stage.drop(name)
                raise InputError(f"{repository.id}/{name}: {CHANGED}")
        stage.commit(manifest)
    return Bundle.open(target)


def _published_file(repository: Repository, name: str, facts: FileFacts) -> RemoteFile:
    """Find a file of a published bundle. Raises InputError if it is not there or not what the manifest says."""
    file = repository.find(name)
    if file is None:
        raise InputError(f"{repository.id}: {name} is named in its {MANIFEST} and not there")
    if file.size != facts.bytes or (file.sha256 and file.sha256 != facts.sha256):
        raise InputError(f"{repository.id}/{name}: {CHANGED}")
    if name == NOTES or name.endswith(SUFFIX):
        raise InputError(f"{repository.id}/{name}: a name that a bundle cannot have while it is written")
    return file


def _fetch(stage: Staging, step: Step, file: RemoteFile, name: str, patience: Patience) -> None:
    there = stage.files.get(name)
    if there is not None and there.sha256 != file.sha256:
        stage.drop(name)
    stage.add(name, partial(_download, step, file, patience))


def _download(step: Step, file: RemoteFile, patience: Patience, path: Path) -> str:
    return Download(file, path, step(path.name, file.size), patience).run()


def _there(target: Path) -> int:
    """Bytes that an earlier try has left."""
    partial_directory = target.absolute().parent / f".{target.name}.partial"
    try:
        return sum(path.stat().st_size for path in partial_directory.iterdir() if path.is_file())
    except OSError:
        return 0


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
