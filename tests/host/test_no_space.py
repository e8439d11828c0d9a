"""The disk fills up, or a limit is met, in the middle of an export: one line, exit code 3, nothing left."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hosttools import DATA, errors_of, start

from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TINY = DATA / "tiny-gemma2"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root and mount(8); run the tests as root to un-skip")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs here ({done.stderr.decode().strip()}); run where mounting is allowed")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("options", [Options(), Options(npu="none", cpu="F16"), Options(cpu="none", dtype="fp16")])
def test_disk_is_full(options: Options, small_disk: Path) -> None:
    with pytest.raises(BundleError, match=r"b: cannot be written: No space left on device"):
        export(TINY, small_disk / "b", options)
    assert not list(small_disk.iterdir())


def test_disk_is_full_as_a_person_sees_it(small_disk: Path) -> None:
    out, err = (process := start("export", TINY, "-o", small_disk / "b")).communicate(timeout=30)
    assert (process.returncode, out) == (3, b"")
    assert errors_of(err.decode()) == [f"rk-gemma: error: {small_disk}/b: cannot be written: No space left on device"]
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("limit", [0, 100_000])
def test_file_size_limit(limit: int, tmp_path: Path) -> None:
    process = start(
        "export", TINY, "-o", tmp_path / "b",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, b"")
    assert "File too large" in errors_of(err.decode())[0]
    assert not list(tmp_path.iterdir())
