"""The sysroot in the cache: named after what it is made from, built apart and renamed when whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import debs
import enter
import wheels
from job import CHECKOUT, Failed, make_job

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
# Raise it when the way of building changes in a way that old trees cannot serve.
RECIPE = 1


def inputs() -> dict[str, object]:
    """All that decides what a tree holds, but for the versions that the archives offer today."""
    override = debs.sources_override()
    release = platform.freedesktop_os_release()
    return {
        "recipe": RECIPE,
        "sources": override.read_text() if override else f"{release['ID']} {release.get('VERSION_ID', '')}",
        "packages": debs.read_list(HERE / "sysroot-packages.txt"),
        "requirements": requirements(),
    }


def requirements() -> list[str]:
    """Of the project and of its tests."""
    project = wheels.project_requirements(CHECKOUT / "pyproject.toml")
    return project + debs.read_list(HERE / "requirements.txt")


def location() -> Path:
    """The directory of the tree and its stamp, there or not."""
    digest = hashlib.sha256(json.dumps(inputs(), sort_keys=True).encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rk-gemma" / f"sysroot-arm64-{digest[:12]}"


def find() -> Path:
    """The root of the built tree."""
    place = location()
    if not (place / "stamp.json").is_file():
        raise Failed("the sysroot is not built: python3 board/emulation/sysroot.py build")
    return place / "root"


def build(*, force: bool = False) -> Path:
    """Build unless it is there; its root. A second builder waits for the first and finds the work done."""
    place = location()
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_suffix(".lock")):
        if not force and (place / "stamp.json").is_file():
            return place / "root"
        for left in place.parent.glob(f"{place.name}.*.tmp"):
            shutil.rmtree(left)
        work = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{place.name}.", suffix=".tmp"))
        try:
            _fill(work / "tree")
            _replace(place, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return place / "root"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(tree: Path) -> None:
    root = tree / "root"
    (tree / "mnt").mkdir(parents=True)
    _say("packages: fetching")
    files = debs.fetch(debs.read_list(HERE / "sysroot-packages.txt"), tree.parent / "apt")
    packages = debs.unpack(files, root)
    python, glibc = _versions(packages)
    _say(f"packages: {len(packages)} for Python {python}, glibc 2.{glibc}; wheels: fetching")
    site = root / f"usr/local/lib/python{python}/dist-packages"
    installed = wheels.install(requirements(), site, python=python, glibc=glibc)
    # pip writes the scripts for the interpreter of the host.
    shutil.rmtree(site / "bin", ignore_errors=True)
    _say(f"wheels: {len(installed)}; compiling")
    _finish(root)
    stamp = {
        "inputs": inputs(),
        "python": python,
        "glibc": f"2.{glibc}",
        "packages": [asdict(package) for package in packages],
        "packages_sha256": hashlib.sha256(repr(packages).encode()).hexdigest(),
        "wheels": installed,
    }
    (tree / "stamp.json").write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


def _versions(packages: list[debs.Package]) -> tuple[str, int]:
    """Python as major.minor, and the minor version of glibc."""
    pythons = [found[1] for package in packages if (found := re.fullmatch(r"python(3\.\d+)", package.name))]
    glibcs = [found[1] for package in packages if (found := re.match(r"libc6 2\.(\d+)", _label(package)))]
    if len(pythons) != 1 or len(glibcs) != 1:
        raise Failed(f"the packages hold Python {pythons} and glibc 2.{glibcs}: one of each is needed")
    return pythons[0], int(glibcs[0])


def _label(package: debs.Package) -> str:
    return f"{package.name} {package.version}"


def _finish(root: Path) -> None:
    """What the scripts of the packages would have done, as far as it matters here."""
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (root / "etc" / name).touch()
    (root / "home/board").mkdir(parents=True, exist_ok=True)
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("dash")
    # A wheel may carry a file that this Python cannot compile; it is never imported then.
    compiling = "python3 -m compileall -q -j 0 /usr/lib/python3* /usr/local/lib/python3*"
    script = f"ldconfig && python3 -c '' && {{ {compiling} || true; }}"
    if enter.run(make_job(root, ["sh", "-c", script], [], writable=True)) != 0:
        raise Failed("the new tree does not run its own programs under qemu; the message is above")


def _replace(place: Path, work: Path) -> None:
    if place.exists():
        place.rename(work / "old")
    (work / "tree").rename(place)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
