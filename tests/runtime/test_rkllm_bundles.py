"""Bundles with an `.rkllm`: what is refused before a library sees the file, by cause, and in one line."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from bundlekit import PART, VOCAB, open_rkllm_bundle, rkllm, write_rkllm_bundle
from runtimekit import one_line

from rk_gemma_runtime.board import Board, Memory, Npu
from rk_gemma_runtime.board.facts import GIB
from rk_gemma_runtime.diagnosis import CAUSES, diagnose
from rk_gemma_runtime.errors import BundleError, NpuError, NpuReason, WeightsError
from rk_gemma_runtime.jobs import Setup
from rk_gemma_runtime.librkllm.rules import require_release
from rk_gemma_runtime.loading import NpuLoader
from rk_gemma_runtime.supervisor import Source
from rk_gemma_runtime.weights import Weights, read_weights
from rk_gemma_runtime.wire import Loaded

if TYPE_CHECKING:
    from pathlib import Path

    from runtimekit import Cli

    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.supervisor import Backend

BOARD = Board(npu=Npu("0.9.8", "RK3588", "/dev/dri/renderD129", True, True), memory=Memory(8 * GIB, 7 * GIB, 0, 0))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3738346748\n"
WHOLE = rkllm().data()
SEEN = rkllm("1.3.1").data()  # of a release whose files were seen to end in their version
NOT_WHOLE = {
    "a pointer": (POINTER, "Git LFS pointer"),
    "a page": (b"<!DOCTYPE html><title>Not found</title>", "web page"),
    "json": (b'{"error":"Entry not found"}', "JSON"),
    "a message": (b"Access to model x is restricted", "error message"),
    "zeros": (bytes(2 << 20), "zeros"),
    "empty": (b"", "empty"),
    "gguf": (b"GGUF" + bytes(2 << 20), "GGUF"),
    "rknn": (b"RKNN" + bytes(2 << 20), ".rknn"),
    "a zip": (b"PK\x03\x04" + bytes(99), "zip"),
    "the head": (WHOLE[:20], "not whole"),
    "cut in the keys": (WHOLE[:900], "not whole"),
    "cut in the weights": (SEEN[: len(SEEN) // 2], "not whole"),
    "without its last byte": (SEEN[:-1], "not whole"),
    "never filled": (WHOLE[:-9000] + bytes(9000), "not whole"),
}
# What the manifest says otherwise than the file: a change of either, and both values.
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "toolkit": ({"npu": {"toolkit": "1.2.3"}}, {}, "toolkit 1.3.0", "1.2.3"),
    "a beta": ({"npu": {"toolkit": "1.2.1"}}, {"toolkit": "1.2.1b1"}, "toolkit 1.2.1b1", "1.2.1"),
    "platform": ({"npu": {"platform": "RK3576", "npu_cores": 2}},
                 {"keys": {"rkllm.core_num": ("u32", 2)}}, "platform RK3588", "RK3576"),
    "a code": ({}, {"keys": {"rkllm.platform": ("u32", 3)}}, "unknown code 3", "RK3588"),
    "cores": ({"npu": {"npu_cores": 2}}, {}, "npu_cores 3", "2"),
    "context": ({"npu": {"max_context": 2048}}, {}, "max_context 4096", "2048"),
    "a longer context": ({"npu": {"max_context": 16384}}, {}, "max_context 4096", "16384"),
    "vocabulary": ({"vocab": 1000}, {}, f"vocabulary {VOCAB}", "1000"),
    "architecture": ({}, {"keys": {"general.architecture": ("string", "llama")}}, "architecture llama", "gemma2"),
}  # fmt: skip


def refusal(bundle: Bundle) -> tuple[str, str]:
    """Cause and message."""
    with pytest.raises(WeightsError) as caught:
        read_weights(bundle, ()).check()
    assert (caught.value.exit_code, caught.value.cause in CAUSES) == (3, True)
    assert "--force" in caught.value.remedy and str(bundle.npu_file) in str(caught.value)
    return caught.value.cause, f"{caught.value}; {caught.value.remedy}"


@pytest.mark.parametrize("toolkit", ["1.1.0", "1.1.1", "1.1.4", "1.2.0", "1.2.1b1", "1.2.3", "1.3.0", "1.3.1"])
def test_a_file_that_agrees_is_taken_and_says_which_library_it_needs(tmp_path: Path, toolkit: str) -> None:
    stated = open_rkllm_bundle(tmp_path / "stated", npu={"toolkit": toolkit})
    silent = open_rkllm_bundle(tmp_path / "silent", rkllm(toolkit), npu={"toolkit": ""})
    for bundle in (stated, silent):
        found = read_weights(bundle, ())
        assert (found.toolkit, found.faults) == (toolkit, ())
    assert stated.manifest.npu and stated.manifest.npu.library == f"librkllmrt >= {toolkit}"


@pytest.mark.parametrize("what", NOT_WHOLE)
def test_what_is_not_a_whole_rkllm_is_named(tmp_path: Path, what: str) -> None:
    data, said = NOT_WHOLE[what]
    cause, text = refusal(open_rkllm_bundle(tmp_path / "b", data))
    assert (cause, said in text) == ("model_magic_mismatch", True), text


def test_a_file_without_a_trailer_is_believed_where_none_is_known_to_have_one(tmp_path: Path) -> None:
    bare = rkllm("1.1.0", trailer=b"")
    assert read_weights(open_rkllm_bundle(tmp_path / "old", bare, npu={"toolkit": "1.1.0"}), ()) == Weights("1.1.0")
    assert read_weights(open_rkllm_bundle(tmp_path / "unknown", bare, npu={"toolkit": ""}), ()) == Weights("")


@pytest.mark.parametrize("end", [0, -1, -28, -(1 << 19)])
@pytest.mark.parametrize("toolkit", ["1.1.1", "1.2.0", "1.2.1b1", "1.3.0"])
def test_a_missing_trailer_is_a_doubt_and_no_refusal(
    tmp_path: Path, toolkit: str, end: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = rkllm(toolkit).data()[:end] if end else rkllm(toolkit, trailer=b"").data()
    found = read_weights(open_rkllm_bundle(tmp_path / "b", data, npu={"toolkit": toolkit}), ())
    found.check()
    assert [toolkit in doubt.text for doubt in found.doubts] == [True]
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "may not be whole" in record.getMessage()


@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_manifest_that_says_otherwise_is_refused_with_both_values(tmp_path: Path, what: str) -> None:
    manifest, file, ours, theirs = DIFFERENCES[what]
    cause, text = refusal(open_rkllm_bundle(tmp_path / "b", rkllm(**file), **manifest))
    assert cause == "manifest_mismatch"
    assert ours in text and f"bundle.yaml says {theirs}" in text, text
    assert diagnose([text]).cause == "manifest_mismatch"


def test_what_the_file_does_not_say_surely_is_left_to_the_manifest(tmp_path: Path) -> None:
    keys = ("platform", "core_num", "max_context", "version")
    bare = rkllm(keys={f"rkllm.{key}": None for key in keys} | {"general.architecture": ("string", "custom")})
    bundle = open_rkllm_bundle(tmp_path / "b", bare, npu={"npu_cores": 1, "max_context": 64})
    assert read_weights(bundle, ()).faults == ()


@pytest.mark.parametrize(
    ("npu", "said"),
    [
        ({"npu_cores": 4}, "npu_cores is 4"), ({"npu_cores": 9, "platform": ""}, "npu_cores is 9"),
        ({"npu_cores": 3, "platform": "RK3576"}, "RK3576 has 2"), ({"max_context": 4100}, "not a multiple of 32"),
        ({"max_context": 31, "toolkit": "1.2.0"}, "not a multiple of 32"),
    ],
)  # fmt: skip
def test_values_that_no_file_has_are_refused(tmp_path: Path, npu: dict[str, Any], said: str) -> None:
    cause, text = refusal(open_rkllm_bundle(tmp_path / "b", npu=npu))
    assert cause == "manifest_mismatch" and said in text
    assert diagnose([text]).cause == cause


@pytest.mark.parametrize("toolkit", ["1.0.0", "1.0.1", "1.0.2"])
@pytest.mark.parametrize("stated", [True, False])
def test_files_of_toolkit_1_0_are_refused_and_the_way_out_is_told(tmp_path: Path, toolkit: str, stated: bool) -> None:
    bundle = open_rkllm_bundle(tmp_path / "b", rkllm(toolkit), npu={"toolkit": toolkit if stated else ""})
    cause, text = refusal(bundle)
    assert cause == "model_version_mismatch" and "update_rkllm" in text and "1.1.4" in text
    assert diagnose([text]).cause == cause


@pytest.mark.parametrize("what", ["a pointer", "a page", "json", "zeros", "empty", "a zip", "cut in the keys"])
def test_an_adapters_file_is_looked_at_too(tmp_path: Path, what: str) -> None:
    data, said = NOT_WHOLE[what]
    bundle = open_rkllm_bundle(tmp_path / "b", adapters={"pirate": data})
    assert read_weights(bundle, ()).faults == ()
    (fault,) = read_weights(bundle, [bundle.path("pirate.lora.rkllm")]).faults
    assert "pirate.lora.rkllm" in fault.text and said in fault.text and fault.cause == "model_magic_mismatch"


def test_an_adapter_counts_for_the_library_and_must_be_for_the_model(tmp_path: Path) -> None:
    other = {"general.architecture": ("string", "llama")}
    loras = {"newer": rkllm("1.3.1"), "other": rkllm(keys=other), "ours": b"GGUF" + bytes(99), "odd": b"\x90" * 999}
    bundle = open_rkllm_bundle(tmp_path / "b", adapters=loras)
    files = {name: bundle.path(f"{name}.lora.rkllm") for name in loras}
    assert read_weights(bundle, [files["newer"]]).toolkit == "1.3.1"
    assert read_weights(bundle, [files["ours"], files["odd"]]).faults == ()  # nobody knows what they look like
    (fault,) = read_weights(bundle, [files["other"]]).faults
    assert "this adapter is for llama and the model is gemma2" in fault.text


def test_the_simulators_weights_and_those_of_a_cpu_bundle_are_not_looked_at(tmp_path: Path) -> None:
    sim = open_rkllm_bundle(tmp_path / "sim", b"RKGSIM\r\n", npu={"format": "sim", "file": "model.sim"})
    assert (read_weights(sim, ()).toolkit, read_weights(sim, ()).faults) == ("", ())


class Starts:
    """Takes loads down."""

    def __init__(self) -> None:
        self.setups: list[Setup] = []

    def __call__(self, source: Source) -> Backend:
        self.setups.append(source.setup)
        return cast("Backend", SimpleNamespace(source=source, loaded=Loaded("1.3.0", 1, 1)))


def source(bundle: Bundle, context: int = 4096) -> Source:
    return Source("npu", Setup(str(bundle.npu_file), context))


def test_the_loader_hands_on_which_library_is_needed_and_force_does_not_ask(tmp_path: Path) -> None:
    starts, bundle = Starts(), open_rkllm_bundle(tmp_path / "b", npu={"toolkit": "1.2.3"})
    NpuLoader(bundle, BOARD).open(source(bundle), starts)
    NpuLoader(bundle, BOARD, force=True).open(source(bundle), starts)
    assert [setup.needs for setup in starts.setups] == ["1.2.3", ""]


def test_the_loader_refuses_before_anything_is_started_unless_forced(tmp_path: Path) -> None:
    starts, bundle = Starts(), open_rkllm_bundle(tmp_path / "b", POINTER)
    with pytest.raises(BundleError):
        NpuLoader(bundle, BOARD).open(source(bundle), starts)
    assert starts.setups == []
    NpuLoader(bundle, BOARD, force=True).open(source(bundle), starts)
    assert len(starts.setups) == 1


@pytest.mark.parametrize(
    ("npu", "context", "reason"),
    [
        ({"platform": "RK3576", "npu_cores": 2}, 4096, NpuReason.PLATFORM_MISMATCH),
        ({"platform": "RK3562", "npu_cores": 1}, 4096, NpuReason.PLATFORM_MISMATCH),
        ({}, 4128, NpuReason.CONTEXT_TOO_LONG),
        ({"dtype": "w4a16"}, 8192, NpuReason.CONTEXT_TOO_LONG),
    ],
)
def test_what_the_board_does_not_take_is_the_plans_to_refuse(
    tmp_path: Path, npu: dict[str, Any], context: int, reason: NpuReason
) -> None:
    starts, bundle = Starts(), open_rkllm_bundle(tmp_path / "b", npu=npu)
    with pytest.raises(NpuError) as caught:
        NpuLoader(bundle, BOARD).open(source(bundle, context), starts)
    assert (caught.value.reason, caught.value.exit_code, starts.setups) == (reason, 4, [])
    NpuLoader(bundle, BOARD, force=True).open(source(bundle, context), starts)
    assert len(starts.setups) == 1


def library(version: str, releases: tuple[str, ...] = ("1.2.1", "1.2.2", "1.2.3")) -> Any:
    identity, layout = SimpleNamespace(version=version or None), SimpleNamespace(releases=releases)
    return SimpleNamespace(path="/usr/lib/librkllmrt.so", identity=identity, layout=layout)


@pytest.mark.parametrize(
    ("made", "runs", "taken"),
    [
        ("", "1.1.0", True), ("1.1.0", "1.1.4", True), ("1.1.4", "1.1.0", False), ("1.1.1", "1.3.0", True),
        ("1.2.0", "1.1.4", False), ("1.2.2", "1.2.1", False), ("1.2.1", "1.2.1b1", True), ("1.2.1b1", "1.2.1", True),
        ("1.2.1b1", "1.2.0", False), ("1.2.3", "1.2.3", True), ("1.2.3", "1.3.0", True), ("1.3.1", "1.3.0", False),
        ("1.10.0", "1.9.0", False), ("1.2.3", "", True), ("1.3.0", "", False), ("unknown", "1.1.0", True),
    ],
)  # fmt: skip
def test_the_library_must_not_be_older_than_the_toolkit(made: str, runs: str, taken: bool) -> None:
    if taken:
        require_release(library(runs), made)
        return
    with pytest.raises(NpuError, match=f"librkllmrt {made} or newer is needed") as caught:
        require_release(library(runs), made)
    assert (caught.value.reason, caught.value.exit_code) == (NpuReason.MODEL_VERSION, 4)
    assert diagnose([str(caught.value)]).cause == caught.value.cause == "model_version_mismatch"


@pytest.mark.parametrize("what", ["a pointer", "cut in the weights"])
def test_the_command_says_it_in_one_line(cli: Cli, tmp_path: Path, what: str) -> None:
    folder = write_rkllm_bundle(tmp_path / "b", NOT_WHOLE[what][0])
    done = cli("run", folder, "--ids", "2,3")
    assert (done.returncode, done.stdout) == (3, "")
    assert NOT_WHOLE[what][1] in one_line(done.stderr) and "Traceback" not in done.stderr


def test_an_unlimited_part_is_what_the_tests_begin_with() -> None:
    assert replace(PART, toolkit="").library == ""
