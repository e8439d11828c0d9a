"""What the doctor and the plan say of a bundle with an `.rkllm`, from its manifest and its file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bundlekit import open_rkllm_bundle, rkllm, write_rkllm_bundle
from doctorkit import put, readings, tree

from rk_gemma_runtime.doctor.report import examine

if TYPE_CHECKING:
    from pathlib import Path

    from runtimekit import Cli

    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.doctor.findings import Finding
    from rk_gemma_runtime.doctor.report import Report

LIBRARY = {"path": "/usr/lib/librkllmrt.so", "version": "", "layout": "1.3.0", "machine": "aarch64",
           "missing": [], "problem": "", "reason": "", "tried": True}  # fmt: skip


def examined(tmp_path: Path, bundle: Bundle, library: str = "1.3.0", **parts: dict[str, Any]) -> Report:
    board = tree(tmp_path / "board", **parts)
    if library:
        put(board, "rk-gemma/library", json.dumps({**LIBRARY, "version": library}))
    return examine(readings(board), bundle)


def of(report: Report, name: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.id == name]


@pytest.mark.parametrize(
    ("made", "runs", "severity", "said"),
    [
        ("1.2.3", "1.2.3", "ok", "not older"), ("1.1.1", "1.3.0", "ok", "not older"),
        ("1.2.1b1", "1.2.1", "ok", "not older"), ("1.3.0", "1.2.3", "error", "1.2.3 is older"),
        ("1.1.4", "1.1.1", "error", "1.1.1 is older"), ("1.3.1", "1.3.0", "error", "1.3.0 is older"),
        ("1.3.0", "", "note", "librkllmrt >= 1.3.0"),
    ],
)  # fmt: skip
def test_which_library_is_needed_and_whether_it_is_here(
    tmp_path: Path, made: str, runs: str, severity: str, said: str
) -> None:
    report = examined(tmp_path, open_rkllm_bundle(tmp_path / "b", npu={"toolkit": made}), runs)
    (found,) = of(report, "bundle_toolkit")
    assert (found.severity, said in found.title) == (severity, True), found
    assert report.usable("npu") == (severity != "error")
    if severity == "error":
        assert (found.cause, found.remedy) == ("model_version_mismatch", f"use librkllmrt >= {made}")


def test_a_toolkit_that_only_the_file_names_counts(tmp_path: Path) -> None:
    bundle = open_rkllm_bundle(tmp_path / "b", rkllm("1.3.1"), npu={"toolkit": ""})
    assert of(examined(tmp_path, bundle, "1.3.0"), "bundle_toolkit")[0].severity == "error"


@pytest.mark.parametrize(
    ("made", "runs", "noted"),
    [("1.1.1", "1.3.0", True), ("1.2.2", "1.3.0", True), ("1.2.3", "1.3.0", True), ("1.2.3", "1.2.3", False),
     ("1.3.0", "1.3.0", False), ("1.2.3", "1.3.1", False)],
)  # fmt: skip
def test_end_ids_that_the_library_does_not_see_are_a_note(tmp_path: Path, made: str, runs: str, noted: bool) -> None:
    found = of(examined(tmp_path, open_rkllm_bundle(tmp_path / "b", npu={"toolkit": made}), runs), "bundle_eos")
    assert [(f.severity, f.blocks, "bundle's own" in f.title) for f in found] == [("note", (), True)] * noted


@pytest.mark.parametrize(
    ("file", "npu", "cause"),
    [
        (b"<html>", {}, "model_magic_mismatch"), (rkllm().data()[:900], {}, "model_magic_mismatch"),
        (rkllm("1.0.1"), {"toolkit": "1.0.1"}, "model_version_mismatch"),
        (None, {"npu_cores": 5}, "manifest_mismatch"), (rkllm("1.2.0"), {}, "manifest_mismatch"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_one_error(tmp_path: Path, file: Any, npu: dict[str, Any], cause: str) -> None:
    report = examined(tmp_path, open_rkllm_bundle(tmp_path / "b", file, npu))
    errors = [f for f in report.findings if f.severity == "error"]
    assert [(f.id, f.cause, f.blocks) for f in errors] == [("bundle_file", cause, ("npu",))]
    assert errors[0].remedy and errors[0].evidence


@pytest.mark.parametrize("toolkit", ["1.1.1", "1.3.0"])
def test_a_missing_trailer_is_a_warning_that_blocks_nothing(tmp_path: Path, toolkit: str) -> None:
    made = open_rkllm_bundle(tmp_path / "b", rkllm(toolkit, trailer=b""), npu={"toolkit": toolkit})
    (found,) = of(examined(tmp_path, made, "1.3.1"), "bundle_file")
    assert (found.severity, found.cause, found.blocks) == ("warning", "", ())
    assert "may not be whole" in found.title and "sha256" in found.remedy


@pytest.mark.parametrize("dtype", ["w8a8", "of a type that nobody knows"])
def test_another_platform_is_an_error_with_or_without_a_plan(tmp_path: Path, dtype: str) -> None:
    npu = {"platform": "RK3576", "npu_cores": 2, "dtype": dtype}
    found = of(examined(tmp_path, open_rkllm_bundle(tmp_path / "b", npu=npu)), "bundle_npu")
    assert [f.cause for f in found if f.severity == "error"] == ["platform_mismatch"]
    assert all("for this board's chip" in f.remedy for f in found if f.cause)


def plan(cli: Cli, *words: object, **env: str) -> dict[str, Any]:
    return dict(json.loads(cli("plan", *words, "--json", env=env).stdout))


def test_the_plan_says_the_same(cli: Cli, tmp_path: Path) -> None:
    folder, here = write_rkllm_bundle(tmp_path / "b", npu={"toolkit": "1.2.3"}), ("--board", "orangepi5-16gb")
    fits = plan(cli, folder, *here, "--runtime", "1.3.0")
    assert (fits["verdict"], fits["library"]["needs"]) == ("fits", "librkllmrt >= 1.2.3")
    assert "end ids" in fits["library"]["notes"][0]
    no = plan(cli, folder, *here, "--runtime", "1.2.1")
    assert (no["verdict"], no["reasons"][0]["cause"]) == ("no", "model_version_mismatch")
    assert no["cures"] == ["librkllmrt 1.2.3 or newer would do".removesuffix(" would do")]
    told = plan(cli, folder, *here)
    assert (told["verdict"], told["library"]["runtime"], told["library"]["notes"]) == ("fits", "", [])
    long = plan(cli, folder, *here, "--context", 8192)
    assert (long["verdict"], long["reasons"][0]["cause"]) == ("no", "context_too_long")
    assert plan(cli, "gemma-2-2b", *here)["library"] is None


def test_the_plan_says_it_to_people_too(cli: Cli, tmp_path: Path) -> None:
    old = write_rkllm_bundle(tmp_path / "old", rkllm("1.0.2"), npu={"toolkit": "1.0.2"})
    words = " ".join(cli("plan", old, "--board", "orangepi5-16gb").stdout.split())
    assert "no librkllmrt from 1.1.0 on reads" in words and "update_rkllm" in words
    new = write_rkllm_bundle(tmp_path / "new")
    words = " ".join(cli("plan", new, "--board", "orangepi5-16gb", "--runtime", "1.3.1").stdout.split())
    assert "library: librkllmrt >= 1.3.0; planned for 1.3.1" in words
