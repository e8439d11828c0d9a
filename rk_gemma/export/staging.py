"""Writing a bundle so that it is there whole or not at all.

Files are written into `.NAME.partial` beside the target, synced, and renamed to the target at the end. Finished
files are noted in it, and how far a large one is (see `growing`), so an export that was interrupted goes on where it
stopped; one that failed leaves nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rk_gemma.export.growing import SUFFIX
from rk_gemma_runtime.bundle import MANIFEST, Bundle, FileFacts, Manifest, sha256_of
from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOTES = "export.json"
AGAIN = "the same command goes on from there"


class Staging:
    """The directory in which a bundle grows. One process at a time; a second is refused."""

    def __init__(self, directory: Path, target: Path, key: str) -> None:
        self.directory = directory
        self.target = target
        self._key = key
        self.files: dict[str, FileFacts] = self._resume()

    def claim(self) -> None:
        """State the key before anything is begun: an unfinished file belongs to it."""
        self._note()

    def add(self, name: str, write: Callable[[Path], str | None]) -> bool:
        """Have `write` write the file, unless an earlier try finished it. True if it was written now. `write` may
        return the file's sha256 where it knows it; else the file is read for that."""
        if name in self.files:
            return False
        path = self.directory / name
        digest = write(path)
        _sync(path)
        self.files[name] = FileFacts(digest or sha256_of(path), path.stat().st_size)
        self._note()
        return True

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest and put the directory in its place."""
        path = self.directory / MANIFEST
        path.write_text(manifest.dump(), encoding="utf-8")
        _sync(path)
        self.keep_only({*self.files, MANIFEST})
        try:
            Bundle.open(self.directory)  # what cannot be opened must not stand at the target
        except BundleError as error:
            raise BundleError(str(error).replace(str(self.directory), str(self.target))) from error
        (self.directory / NOTES).unlink()
        _sync(self.directory)
        os.rename(self.directory, self.target)
        _sync(self.target.parent)

    def keep_finished(self) -> None:
        """Drop what cannot be gone on with after an interrupt; drop everything if nothing can."""
        if not self.directory.exists():  # the interrupt came after the rename
            return
        kept = {*self.files, *self._begun()}
        if not kept:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        for path in self.directory.iterdir():
            if path.name not in {*kept, NOTES}:
                _remove(path)

    def keep_only(self, names: set[str]) -> None:
        """Remove all that another try has left, but these files and the notes on how far they are."""
        for name in [name for name in self.files if name not in names]:
            self.drop(name)
        for path in self.directory.iterdir():
            if path.name != NOTES and path.name.removesuffix(SUFFIX) not in names:
                _remove(path)

    def drop(self, name: str) -> None:
        """Forget a file of an earlier try, and remove it."""
        self.files.pop(name, None)
        (self.directory / name).unlink(missing_ok=True)
        self._note()

    def end(self, keep: bool) -> None:
        """After a failure: remove everything, or keep what can be gone on with."""
        if keep:
            self.keep_finished()
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def stopped(self) -> str:
        """Say what an interrupt has left, and where."""
        if not self.directory.exists():
            whole = os.path.lexists(self.target)
            return f"stopped; {self.target} is whole" if whole else "stopped; nothing could be kept yet"
        done = sum(_stored(path) for path in self.directory.iterdir() if path.name != NOTES)
        return f"stopped; {done / 1e6:.1f} MB are kept in {self.directory}; {AGAIN}"

    def _resume(self) -> dict[str, FileFacts]:
        """Find the finished files of an earlier try of the same export; everything else is removed."""
        notes = self.directory / NOTES
        done: dict[str, FileFacts] = {}
        try:
            state = json.loads(notes.read_text(encoding="utf-8"))
            known = state["key"] == self._key
            if known:
                done = {name: FileFacts(**facts) for name, facts in state["files"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            done, known = {}, False
        kept = {NOTES, *(self._begun() if known else ())}
        present = {path.name for path in self.directory.iterdir()}
        for path in self.directory.iterdir():
            facts = done.get(path.name)
            if path.name not in kept and (facts is None or path.stat().st_size != facts.bytes):
                done.pop(path.name, None)
                _remove(path)
        return {name: facts for name, facts in done.items() if os.path.basename(name) == name and name in present}

    def _begun(self) -> set[str]:
        """Name the large files that can be gone on with, and the notes on them."""
        sides = [path for path in self.directory.glob(f"*{SUFFIX}") if path.is_file() and not path.is_symlink()]
        names = {path.name: path.name.removesuffix(SUFFIX) for path in sides}
        whole = {side for side, name in names.items() if os.path.isfile(self.directory / name)}
        return {*whole, *(names[side] for side in whole)}

    def _note(self) -> None:
        state = {"key": self._key, "files": {name: asdict(f) for name, f in self.files.items()}}
        fresh = self.directory / f"{NOTES}.new"
        fresh.write_text(json.dumps(state), encoding="utf-8")
        os.replace(fresh, self.directory / NOTES)


@contextmanager
def staging(
    target: Path, key: str, on_stop: Callable[[str], None] = lambda line: None, keep: bool = False
) -> Iterator[Staging]:
    """Open a Staging for `target`; `key` names source and options. Cleans up as the class says; with `keep` what a
    failure leaves is gone on with too, as after an interrupt. `on_stop` gets the line to say after an interrupt; the
    latest counts.

    Raises BundleError if the target exists, cannot be made, is being written by another process, or if another user
    could have put something there.
    """
    refuse_existing(target)
    directory = partial_of(target)
    try:
        directory.mkdir(exist_ok=True)
        if directory.is_symlink():
            raise BundleError(f"{directory}: a link; remove it")
    except OSError as error:
        hint = "; create it first" if isinstance(error, FileNotFoundError) else ""
        raise BundleError(f"{target.parent}: cannot write here: {error.strerror}{hint}") from error
    with _locked(directory):
        _refuse_strangers(directory)
        stage = Staging(directory, target, key)
        on_stop(f"stopped; what is written is in {directory}; {AGAIN}")  # if cleaning up is interrupted, too
        try:
            stage.claim()
            yield stage
            on_stop(stage.stopped())
        except (KeyboardInterrupt, SystemExit):
            stage.keep_finished()
            on_stop(stage.stopped())
            raise
        except OSError as error:
            stage.end(keep)
            raise BundleError(f"{target}: cannot be written: {error.strerror or error}") from error
        except BaseException:
            stage.end(keep)
            raise


def partial_of(target: Path) -> Path:
    """Return where a bundle grows until it is whole."""
    return target.parent / f".{target.name}.partial"


def refuse_existing(target: Path) -> None:
    """Raise BundleError if something stands where the bundle shall be."""
    if os.path.lexists(target):
        raise BundleError(f"{target}: exists; remove it or choose another directory")


def _refuse_strangers(directory: Path) -> None:
    """In a directory that all may write, such as /tmp, somebody may have made ours first."""
    me = os.geteuid()
    odd = next((path for path in (directory, *directory.iterdir()) if path.lstat().st_uid != me), None)
    if odd is not None:
        raise BundleError(f"{odd}: belongs to another user; remove {directory}, or choose another target")
    if stat.S_IMODE(directory.stat().st_mode) & stat.S_IWOTH:
        raise BundleError(f"{directory}: everybody may write there; remove it")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BundleError(f"{directory}: another export is writing here") from None
    finally:
        os.close(fd)


def _stored(path: Path) -> int:
    """Count the bytes of a file that are on the disk: holes are not."""
    facts = path.lstat()
    return min(facts.st_size, facts.st_blocks * 512)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
