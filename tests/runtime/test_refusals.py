"""The NPU refuses at init: the CPU answers and one line says why; or, without a CPU, one line and its exit code."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from runtimekit import DATA, one_line, patient, scratch_left

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli

pytestmark = pytest.mark.board

# profile -> (cause, the vendor's line that has to be quoted)
MALLOC = "failed to malloc npu memory, size: 232128512, flags: 0x2"
REFUSALS = {
    "iova": ({"init": "iova"}, "npu_malloc_iova_exhausted", MALLOC),
    "ram": ({"init": "ram"}, "npu_malloc_no_ram", MALLOC),
    "load_error": ({"init": "load_error"}, "init_failed", "load model file error!"),
    "fail": ({"init": "fail"}, "init_failed", ""),
    "null": ({"init": "iova", "init_returns": 0}, "npu_malloc_iova_exhausted", MALLOC),
    "crash": ({"init": "crash"}, "segfault", ""),
    "exit": ({"init": "exit"}, "crash", ""),
}
RUN = ("--threads", 1, "--max-tokens", 24, "--temperature", 0, "--json")


@pytest.fixture
def prompt(golden: dict[str, Any]) -> str:
    return ",".join(map(str, golden["tiny-gemma2"]["prompt_5"].tolist()))


@pytest.mark.parametrize(
    ("name", "layout"), [*((name, "1.3.0") for name in REFUSALS), ("iova", "1.1.0"), ("null", "1.1.0")]
)
def test_in_auto_the_cpu_answers_and_one_line_says_why(
    name: str,
    layout: str,
    tiny_bundle: Path,
    cli: Cli,
    board: Callable[..., dict[str, str]],
    prompt: str,
    golden: dict[str, Any],
    scratch: Path,
) -> None:
    keys, cause, line = REFUSALS[name]
    done = cli("run", tiny_bundle, "--ids", prompt, *RUN, env=board(layout, **keys), timeout=patient(60))
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    degraded = answer["degraded"]
    assert (answer["backend"], degraded["cause"]) == ("cpu", cause)
    assert answer["ids"] == golden["tiny-gemma2"]["greedy_5"].tolist()
    assert set(degraded) == {"cause", "message", "remedy", "diagnosis", "retry_at"}
    assert all(degraded[key] for key in ("cause", "message", "remedy", "diagnosis"))
    assert "\n" not in degraded["message"]
    assert line in degraded["message"]
    said = one_line(done.stderr)
    assert degraded["message"] in said
    assert cause in said
    assert scratch_left(scratch) == []


@pytest.mark.parametrize("name", ["iova", "fail", "null", "crash"])
def test_asked_for_the_npu_only_it_is_one_line_and_an_exit_code(
    name: str, tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]], prompt: str
) -> None:
    keys, cause, line = REFUSALS[name]
    done = cli(
        "run", tiny_bundle, "--ids", prompt, *RUN, "--backend", "npu", env=board(**keys), timeout=patient(60)
    )  # fmt: skip
    # errors.py: NpuError 4; a worker that died says nothing about why, 1.
    assert (done.returncode, done.stdout) == (1 if cause == "segfault" else 4, "")
    assert line in one_line(done.stderr)


@pytest.mark.parametrize(("backend", "code"), [("auto", 5), ("npu", 4)])
def test_a_refusing_npu_and_no_cpu_weights(
    backend: str,
    code: int,
    make_bundle: Callable[..., Path],
    cli: Cli,
    board: Callable[..., dict[str, str]],
    prompt: str,
) -> None:
    bundle = make_bundle(DATA / "tiny-gemma2", dtype="fp16", cpu="none")
    done = cli(
        "run", bundle, "--ids", prompt, *RUN, "--backend", backend, env=board(init="iova"), timeout=patient(60)
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    assert MALLOC in one_line(done.stderr)


def test_a_bundle_without_npu_weights_answers_from_the_cpu_and_is_not_degraded(
    make_bundle: Callable[..., Path], cli: Cli, board: Callable[..., dict[str, str]], prompt: str
) -> None:
    bundle = make_bundle(DATA / "tiny-gemma2", dtype="fp16", cpu="F16", npu="none")
    done = cli("run", bundle, "--ids", prompt, *RUN, env=board(), timeout=patient(60))
    answer = json.loads(done.stdout)
    assert (answer["backend"], answer["degraded"], done.stderr) == ("cpu", None, "")
    done = cli("run", bundle, "--ids", prompt, *RUN, "--backend", "npu", env=board(), timeout=patient(60))
    assert done.returncode == 4
    assert "no NPU weights" in one_line(done.stderr)


def rkllm_bundle(tiny: Path, target: Path, content: bytes) -> Path:
    """A copy of a bundle whose NPU weights are a file named as Rockchip's toolkit names it."""
    target.mkdir()
    tree = yaml.safe_load((tiny / "bundle.yaml").read_text())
    cpu = tree["cpu"]["file"]
    shutil.copy(tiny / cpu, target / cpu)
    (target / "model.rkllm").write_bytes(content)
    tree["npu"] = {**tree["npu"], "file": "model.rkllm", "format": "rkllm"}
    tree["files"] = {cpu: tree["files"][cpu], "model.rkllm": {"sha256": "0" * 64, "bytes": len(content)}}
    (target / "bundle.yaml").write_text(yaml.safe_dump(tree))
    return target


@pytest.mark.parametrize(
    "content", [b"", b"RKLLM\x00\x01\x02", bytes(range(256)) * 64], ids=["empty", "short", "noise"]
)
def test_what_is_not_an_rkllm_is_refused_unread_and_forced_by_the_library(
    content: bytes, tiny_bundle: Path, tmp_path: Path, cli: Cli, board: Callable[..., dict[str, str]], prompt: str
) -> None:
    bundle = rkllm_bundle(tiny_bundle, tmp_path / "real", content)
    done = cli("run", bundle, "--ids", prompt, *RUN, "--backend", "npu", env=board(), timeout=patient(60))
    assert (done.returncode, done.stdout) == (3, "")
    assert "not an .rkllm" in one_line(done.stderr) and "[model_magic_mismatch]" in done.stderr
    for force in ((), ("--force",)):
        done = cli("run", bundle, "--ids", prompt, *RUN, *force, env=board(), timeout=patient(60))
        answer = json.loads(done.stdout)
        assert (answer["backend"], answer["degraded"]["cause"]) == ("cpu", "model_magic_mismatch")
        assert ("rkllm_init failed" in answer["degraded"]["message"]) == bool(force)


def test_damaged_cpu_weights_are_one_line(
    tiny_bundle: Path, tmp_path: Path, cli: Cli, board: Callable[..., dict[str, str]], prompt: str, scratch: Path
) -> None:
    bundle = rkllm_bundle(tiny_bundle, tmp_path / "real", b"x" * 64)
    gguf = bundle / "model.gguf"
    size = gguf.stat().st_size
    gguf.unlink()
    gguf.write_bytes(b"GGUF" + bytes(size - 4))
    for backend, code in (("cpu", 1), ("auto", 5)):
        done = cli("run", bundle, "--ids", prompt, *RUN, "--backend", backend, env=board(), timeout=patient(60))
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.splitlines()[-1].startswith("rk-gemma: error: ")
        assert "Traceback" not in done.stderr
    assert scratch_left(scratch) == []
