"""Where the environments of the toolkit lie: a directory each, whole once it has its toolkit.json."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rk_gemma.toolkit.errors import EnvironmentFault
from rk_gemma.toolkit.interpreter import check_host
from rk_gemma_runtime.board.versions import version_key
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = "RK_GEMMA_HOME"
NOTES = "toolkit.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SETUP = "rk-gemma toolkit setup --wheel rkllm_toolkit-*.whl"


@dataclass(frozen=True)
class Environment:
    """An installed toolkit. `toolkit` and `python` are versions; `packages`: as pins, given or none."""

    folder: Path
    name: str
    toolkit: str
    python: str
    packages: str

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def usable(self) -> bool:
        """Whether its Python is still there; a virtual environment breaks when the one it came from goes."""
        return os.access(self.interpreter, os.X_OK)

    def tree(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {**asdict(self), "folder": str(self.folder), "usable": self.usable}


def home() -> Path:
    """Return the directory of all environments: RK_GEMMA_HOME, else XDG's for data."""
    given = os.environ.get(HOME, "")
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(given) if given else Path(data if os.path.isabs(data) else Path.home() / ".local/share") / "rk-gemma"
    return base.absolute() / "toolkits"


def environments() -> list[Environment]:
    """List the whole ones, the newest toolkit first."""
    folders = sorted(home().iterdir()) if home().is_dir() else []
    found = [env for folder in folders if not folder.name.startswith(".") and (env := _read(folder))]
    return sorted(found, key=lambda env: (version_key(env.toolkit), env.python, env.name), reverse=True)


def find(name: str) -> Environment:
    """Find one by name; without a name the newest that is usable. Raises UsageError if it was never set up, HostError
    where it cannot be, and EnvironmentFault if it is broken."""
    there = environments()
    chosen = [env for env in there if env.name == name] if name else [env for env in there if env.usable]
    if chosen and chosen[0].usable:
        return chosen[0]
    if chosen or (there and not name):
        broken = chosen[0] if chosen else there[0]
        raise EnvironmentFault(
            f"{broken.folder}: its Python is gone; `rk-gemma toolkit remove {broken.name}` and set it up again"
        )
    if not there:
        check_host(sys.platform, platform.machine())
    raise UsageError(f"no toolkit {name or 'is installed'} in {home()}; {_advice(there)}")


def _advice(there: list[Environment]) -> str:
    names = ", ".join(env.name for env in there)
    return f"there is {names}" if names else f"set one up: `{SETUP}`"


def remove(name: str) -> Path:
    """Remove an environment. Raises UsageError if there is none of this name, and EnvironmentFault."""
    folder = place_of(name)
    if not os.path.lexists(folder) or _read(folder) is None:
        raise UsageError(f"no toolkit {name} in {home()}; {_advice(environments())}")
    try:
        gone = folder.with_name(f".{name}.gone")
        if gone.is_dir():  # an earlier removal was interrupted
            shutil.rmtree(gone)
        os.rename(folder, gone)  # never half an environment under its name
        shutil.rmtree(gone)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: cannot be removed: {error.strerror}") from error
    return folder


def place_of(name: str) -> Path:
    """Return where an environment of this name lies. Raises EnvironmentFault for a name that is not plain."""
    if not NAME.fullmatch(name):
        raise EnvironmentFault(f"--name {name!r} is not a plain name; use letters, digits, dots and dashes")
    return home() / name


def write_notes(folder: Path, env: Environment) -> None:
    """State that an environment is whole."""
    tree = {key: value for key, value in asdict(env).items() if key != "folder"}
    (folder / NOTES).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path) -> Environment | None:
    try:
        tree = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        words = [str(tree[key]) for key in ("toolkit", "python", "packages")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Environment(folder, folder.name, *words)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a fresh directory that takes the place of `folder` at the end; a failure leaves nothing. Raises
    EnvironmentFault."""
    if os.path.lexists(folder):
        raise EnvironmentFault(f"{folder}: exists; `rk-gemma toolkit remove {folder.name}`, or give another --name")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        fd = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise EnvironmentFault(f"{partial}: cannot be made: {error.strerror}") from error
    try:
        _lock(fd, partial)
        _empty(partial)
        yield partial
        os.rename(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise EnvironmentFault(f"{folder}: cannot be written: {error.strerror or error}") from error
    except EnvironmentBusy:
        raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(fd)


class EnvironmentBusy(EnvironmentFault):
    """Another process is setting the same environment up."""


def _lock(fd: int, partial: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EnvironmentBusy(f"{partial}: another setup of this name is running") from None


def _empty(partial: Path) -> None:
    """Remove what a setup that was killed has left."""
    for path in partial.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
