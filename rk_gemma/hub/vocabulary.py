"""Where the tokenizer of a pulled bundle comes from. It is never guessed, and always held against the weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma.checkpoint.rebuild import rebuilt
from rk_gemma.hub.download import Download
from rk_gemma.hub.repository import open_repository, parse_repository
from rk_gemma.pack.vocabulary import Vocabulary
from rk_gemma_runtime.errors import BundleError, CheckpointError, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.hub.files import RemoteFile
    from rk_gemma.hub.http import Patience
    from rk_gemma.hub.repository import Repository

NAME, JSON = "tokenizer.model", "tokenizer.json"
LIMIT = 64 << 20


def fetch_bytes(file: RemoteFile, patience: Patience) -> bytes:
    """Download a small file. Raises InputError or HubError."""
    if file.size > LIMIT:
        raise InputError(f"{file.repository}/{file.path}: {file.size} bytes are too many for such a file")
    try:
        with tempfile.TemporaryDirectory(prefix="rk-gemma-") as folder:
            path = Path(folder) / "file"
            Download(file, path, lambda done: None, patience).run()
            return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{tempfile.gettempdir()}: cannot be written: {error.strerror} (TMPDIR)") from error


def given_vocabulary(given: str, patience: Patience) -> Vocabulary:
    """Read what --tokenizer names: a file, else a repository. Raises InputError, UsageError or HubError."""
    path = Path(given)
    if path.is_dir():
        path = path / NAME
    if path.is_file():
        return Vocabulary(read_vocabulary(path), str(path))
    name, revision = parse_repository(given)
    if name.count("/") != 1:
        raise UsageError(f"--tokenizer {given}: neither a file nor a repository (OWNER/NAME)")
    found = of_repository(open_repository(name, revision, patience), patience, lambda line: None)
    if found is None:
        raise InputError(f"{name}: neither {NAME} nor {JSON} in this repository")
    return found


def read_vocabulary(path: Path) -> bytes:
    """Read a tokenizer.model. Raises InputError."""
    try:
        if path.stat().st_size > LIMIT:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a tokenizer.model")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def of_repository(repository: Repository, patience: Patience, warn: Callable[[str], None]) -> Vocabulary | None:
    """Take tokenizer.model, else make it of tokenizer.json; None if there is neither, or it cannot be made."""
    model = repository.find(NAME)
    if model is not None:
        return Vocabulary(fetch_bytes(model, patience), f"{repository.id}/{model.path}")
    tree = repository.find(JSON)
    if tree is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rk-gemma-") as folder:
        path = Path(folder) / JSON
        path.write_bytes(fetch_bytes(tree, patience))
        try:
            return Vocabulary(rebuilt(path), f"{repository.id}/{tree.path}")
        except CheckpointError as error:
            warn(str(error).replace(str(path), f"{repository.id}/{tree.path}").partition("; copy")[0])
            return None
