"""Disk space is looked at before an export: what is asked for is close to what is written, and never more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hosttools import DATA

from rk_gemma.checkpoint import read_spec
from rk_gemma.export import space
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.errors import BundleError
from rk_gemma_runtime.memory.models import SIZES, find_shape

TINY = DATA / "tiny-gemma2"
OPTIONS = {
    "both": Options(), "no CPU": Options(cpu="none"), "no NPU": Options(npu="none"), "fp16": Options(dtype="fp16"),
    "F16": Options(cpu="F16", npu="none"),
}  # fmt: skip


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A disk with so many bytes free."""
    room = {"free": 0}

    def statvfs(folder: object) -> Any:
        return os.statvfs_result((4096, 1, 1 << 40, room["free"], room["free"], 1, 1, 1, 0, 255))

    monkeypatch.setattr(space.os, "statvfs", statvfs)  # type: ignore[attr-defined]
    return room


@pytest.mark.parametrize("case", OPTIONS)
def test_the_estimate_is_below_what_is_written(case: str, tmp_path: Path) -> None:
    options = OPTIONS[case]
    bundle, shape = export(TINY, tmp_path / "b", options), read_spec(TINY).shape
    sizes = {name: facts.bytes for name, facts in bundle.manifest.files.items()}
    if options.npu != "none":
        least = space.npu_bytes(shape, options.dtype)
        assert 0.45 * sizes["model.sim"] < least < sizes["model.sim"]
    if options.cpu != "none":
        assert 0.5 * sizes["model.gguf"] < space.cpu_bytes(shape, options.cpu) < sizes["model.gguf"]


@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize(("npu", "cpu"), [("sim", "Q8_0"), ("sim", "none"), ("none", "F16")])
def test_too_small_a_disk_is_refused_with_both_sizes(
    model: str, npu: str, cpu: str, disk: dict[str, int], tmp_path: Path
) -> None:
    shape = find_shape(model)
    need = (space.npu_bytes(shape, "w8a8") if npu != "none" else 0) + (
        space.cpu_bytes(shape, cpu) if cpu != "none" else 0
    )
    disk["free"] = need // 2
    with pytest.raises(BundleError, match=rf"takes {-(-need // space.MIB)} MiB and \d+ MiB are free"):
        space.check_space(tmp_path / "b", shape, npu, "w8a8", cpu)
    disk["free"] = need
    space.check_space(tmp_path / "b", shape, npu, "w8a8", cpu)


def test_what_an_earlier_try_has_written_counts(disk: dict[str, int], tmp_path: Path) -> None:
    shape = find_shape("gemma-2-2b")
    partial = tmp_path / ".b.partial"
    partial.mkdir()
    with (partial / "model.sim").open("wb") as file:
        file.truncate(space.npu_bytes(shape, "w8a8"))
    disk["free"] = space.cpu_bytes(shape, "Q8_0")
    space.check_space(tmp_path / "b", shape, "sim", "w8a8", "Q8_0")


def test_nothing_is_begun_on_a_full_disk(
    disk: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "SLACK_BYTES", 0)
    with pytest.raises(BundleError, match="no space left"):
        export(TINY, tmp_path / "b", Options())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc", "/sys", "/proc/self/fd"])
def test_a_place_that_has_no_space_is_not_blamed_for_it(place: str) -> None:
    with pytest.raises(BundleError, match=f"^{place}: cannot write here"):
        export(TINY, Path(place) / "out", Options())


def test_a_place_that_may_not_be_written_is_not_full(disk: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is mounted read-only and full."""
    monkeypatch.setattr(space.os, "access", lambda path, mode: False)  # type: ignore[attr-defined]
    space.check_space(Path("/any/out"), find_shape("gemma-2b"), "sim", "w8a8", "Q8_0")


def test_a_place_that_is_not_there_is_said_as_before(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="create it first"):
        export(TINY, tmp_path / "nowhere" / "b", Options())
