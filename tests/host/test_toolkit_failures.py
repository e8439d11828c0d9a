"""Each documented failure of the toolkit becomes a cause, a remedy and an exit code, and leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from standin import build_wheel
from toolkitkit import checkpoint

from rk_gemma_runtime.diagnosis import diagnose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # each starts programs

FAILURES = {
    "not_support": (3, "toolkit_unsupported_model", "Use a newer rkllm-toolkit"),
    "catch_load": (3, "toolkit_unsupported_model", "failed while loading"),
    "cuda_memory": (1, "toolkit_out_of_memory", "CUDA out of memory"),
    "none": (3, "toolkit_unsupported_model", "failed while building: ERROR: Catch exception"),
    "true": (1, "", "failed while building"),
    "dtype": (3, "toolkit_unsupported_dtype", "w8a8"),
    "lora_names": (3, "toolkit_bad_checkpoint", "merge_and_unload"),
    "group": (3, "toolkit_unsupported_dtype", "a group that divides"),
    "tensor_sizes": (3, "toolkit_unsupported_model", "newer rkllm-toolkit"),
    "tokenizer": (3, "toolkit_bad_checkpoint", "Download it again"),
    "narrow": (3, "toolkit_unsupported_model", "96"),
    "convert": (3, "toolkit_unsupported_model", "failed while exporting"),
    "killed": (1, "oom_killed", "add swap"),
    "illegal": (1, "illegal_instruction", "avx2"),
    "exits": (1, "", "failed while building"),
    "no_file": (3, "", "the toolkit returned 0 and wrote no such file"),
}
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "cores": ({"cores": 1}, "npu cores is 1, asked was 3"),
    "context": ({"context": 2048}, "max context is 2048, asked was 1024"),
    "version": ({"version": "1.2.1"}, "toolkit is 1.2.1, asked was 1.2.3"),
    "dtype": ({"file_type": 1}, "dtype is FP16, asked was w8a8"),
    "cut": ({"cut": 700}, "not a whole .rkllm"),
    "empty": ({"cut": 0}, "not a whole .rkllm"),
}


def export(main: Callable[..., Any], source: Path, target: Path, name: str) -> Any:
    return main("export", source, "-o", target, "--npu", "rkllm", "--toolkit", name, "--cpu", "none")


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_told_with_its_cause(
    kind: str, tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    code, cause, words = FAILURES[kind]
    done = export(main, checkpoint(tmp_path / "m", fail=kind), tmp_path / "b", toolkit())
    last = done.stderr.splitlines()[-1]
    assert (done.code, last.startswith("rk-gemma: error: ")) == (code, True), done.stderr
    assert words in last
    assert not cause or f"[{cause}]" in last
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("kind", LIES)
def test_a_file_that_says_otherwise_is_not_taken(
    kind: str, tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    lie, words = LIES[kind]
    done = export(main, checkpoint(tmp_path / "m", lie=lie), tmp_path / "b", toolkit())
    assert (done.code, words in done.stderr) == (3, True), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


# What people saw while they set the toolkit up or ran it by hand: hub reports and issues of airockchip/rknn-llm.
SEEN = {
    "toolkit_bad_environment": [
        "ModuleNotFoundError: No module named 'pkg_resources'",
        "NameError: name 'exit' is not defined",
        "ERROR: rkllm_toolkit-1.1.4-cp38-cp38-linux_x86_64.whl is not a supported wheel on this platform.",
        "ERROR: No matching distribution found for torch==2.3.0",
        "ERROR: Could not find a version that satisfies the requirement torch==2.6.0 (from versions: none)",
        "RuntimeError: operator torchvision::nms does not exist",
        "ImportError: cannot import name 'is_torch_fx_available' from 'transformers.utils.import_utils' (/x/y.py)",
        "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.",
        "ModuleNotFoundError: No module named 'rkllm'",
        "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1.0 as it may crash.",
    ],
    "toolkit_bad_checkpoint": [
        "ERROR: Catch exception when loading model: expected value at line 1 column 1",
        "ERROR: Catch exception when optimizing model: 'mlp.down_proj'",
        "ERROR: Catch exception when building model: 'self_attn.q_proj'",
        "Access to model google/gemma-2-2b-it is restricted. You must be authenticated to access it.",
    ],
    "model_magic_mismatch": ["safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge"],
    "toolkit_unsupported_model": ["ERROR: the dimension of k/v must be greater than or equal to 96"],
    "toolkit_unsupported_dtype": ["ERROR: Not support GGMLQuantizationType: MOSTLY_Q4_K_M!"],
    "toolkit_out_of_memory": [
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory",
        "ERROR: Catch exception when loading model: CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
    "oom_killed": ["Building model:  41%|####1     | 13/32 [10:11<12:00, 38.2s/it]\nKilled"],
}


@pytest.mark.parametrize(("cause", "line"), [(cause, line) for cause, lines in SEEN.items() for line in lines])
def test_explain_knows_what_people_saw(cause: str, line: str) -> None:
    found = diagnose(["INFO: rkllm-toolkit version: 1.2.3", *line.split("\n")])
    assert (found.cause, found.confidence >= 0.5) == (cause, True)


@pytest.mark.slow  # each is a virtual environment
@pytest.mark.parametrize(("broken", "cause"), [
    ("import pkg_resources_is_not_here", ""),
    ("raise ModuleNotFoundError(\"No module named 'pkg_resources'\")", "toolkit_bad_environment"),
    ("raise RuntimeError('operator torchvision::nms does not exist')", "toolkit_bad_environment"),
    ("import os; os.kill(os.getpid(), 4)", "illegal_instruction"),
])  # fmt: skip
def test_a_toolkit_that_cannot_be_imported_is_not_kept(
    broken: str, cause: str, tmp_path: Path, main: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RK_GEMMA_HOME", str(tmp_path / "home"))
    wheel = build_wheel(tmp_path, "1.2.3", broken=broken)
    done = main("toolkit", "setup", "--wheel", wheel, "--no-pins")
    last = done.stderr.splitlines()[-1]
    assert done.code == 1 and "while starting" in last, done.stderr
    assert not cause or f"[{cause}]" in last
    assert not list((tmp_path / "home" / "toolkits").iterdir())
