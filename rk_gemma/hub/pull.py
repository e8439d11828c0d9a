"""`rk-gemma pull`: from an order to a bundle on the disk."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma.export.progress import reporter
from rk_gemma.export.staging import staging
from rk_gemma.hub.download import Download
from rk_gemma.hub.vocabulary import fetch_bytes
from rk_gemma.pack.room import check_bytes
from rk_gemma_runtime.bundle import MANIFEST, Bundle, read_manifest
from rk_gemma_runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.export.progress import Step
    from rk_gemma.export.staging import Staging
    from rk_gemma.hub.http import Patience
    from rk_gemma.hub.order import Order
    from rk_gemma.hub.repository import RemoteFile, Repository
    from rk_gemma_runtime.bundle import Manifest

    Stopped = Callable[[str], None]

KEY = json.dumps(["pull", 1])  # each file is held against its own hash, so any order may go on with any files


@dataclass(frozen=True)
class Wanted:
    """A file and its name in the bundle; `sha256` may be known from another place than the hub's list."""

    file: RemoteFile
    name: str

    @property
    def sha256(self) -> str:
        """Empty if the hub does not tell."""
        return self.file.sha256


def standing(target: Path) -> Bundle | None:
    """Open what stands at the target; None if nothing does. Raises BundleError for anything but a bundle."""
    if not target.exists() and not target.is_symlink():
        return None
    try:
        return Bundle.open(target)
    except BundleError as error:
        if (target / MANIFEST).is_file():
            raise
        raise BundleError(f"{target}: exists; remove it or choose another directory") from error


def check_unchanged(there: Bundle, wanted: Manifest) -> None:
    """Raise BundleError if the bundle that is there is not the wanted one: for another model, another commit, other
    options, and with the name of a file that was changed. Reads every file."""
    have, target = there.manifest, there.directory
    if have.model.source != wanted.model.source:
        raise BundleError(
            f"{target}: exists and holds {have.model.source or 'another model'}; choose another directory"
        )
    if have.model.revision != wanted.model.revision:
        now, then = wanted.model.revision[:12], have.model.revision[:12]
        raise BundleError(f"{target}: holds {then}, the hub has {now} now; remove it, or choose another directory")
    if replace(have, files={}, quality={}) != replace(wanted, files={}, quality={}):
        raise BundleError(f"{target}: exists and was made with other options; remove it, or choose another directory")
    there.verify()


def carry_out(order: Order, target: Path, patience: Patience, on_stop: Stopped = lambda line: None) -> Bundle:
    """Download what the order needs and make the bundle. Blocks. Raises InputError, BundleError, HubError; what was
    downloaded stays for the next try."""
    assert order.recipe is not None
    wanted = [Wanted(file, name) for file, name in order.items]
    vocabulary, manifest = order.given.vocabulary, order.recipe.manifest
    check_bytes(target, order.size, _there(target))
    with staging(target, KEY, on_stop, keep=True) as stage, reporter() as step:
        _keep(stage, {one.name for one in wanted} | {"tokenizer.model"})
        for one in wanted:
            _fetch(stage, step, one, patience)
        stage.drop("tokenizer.model")
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
    files = {name: repository.find(name) for name in manifest.files}
    lost = [name for name, file in files.items() if file is None]
    if lost:
        raise InputError(f"{repository.id}: {lost[0]} is named in its {MANIFEST} and not there")
    wanted = [Wanted(file, name) for name, file in files.items() if file is not None]
    check_bytes(target, sum(one.file.size for one in wanted), _there(target))
    with staging(target, KEY, on_stop, keep=True) as stage, reporter() as step:
        _keep(stage, set(files))
        for one in wanted:
            _fetch(stage, step, one, patience)
            if stage.files[one.name] != manifest.files[one.name]:
                stage.drop(one.name)
                raise InputError(f"{repository.id}/{one.name}: not as its {MANIFEST} says; it was changed after that")
        stage.commit(manifest)
    return Bundle.open(target)


def _keep(stage: Staging, names: set[str]) -> None:
    for name in [name for name in stage.files if name not in names]:
        stage.drop(name)


def _fetch(stage: Staging, step: Step, one: Wanted, patience: Patience) -> None:
    there = stage.files.get(one.name)
    if there is not None and there.sha256 != one.sha256:
        stage.drop(one.name)
    stage.add(one.name, partial(_download, step, one, patience))


def _download(step: Step, one: Wanted, patience: Patience, path: Path) -> str:
    return Download(one.file, path, step(one.name, one.file.size), patience).run()


def _there(target: Path) -> int:
    """Bytes that an earlier try has left."""
    partial_directory = target.absolute().parent / f".{target.name}.partial"
    try:
        return sum(path.stat().st_size for path in partial_directory.iterdir() if path.is_file())
    except OSError:
        return 0


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
