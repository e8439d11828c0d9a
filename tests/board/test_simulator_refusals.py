"""Every refusal of the profile table, each in a process of its own: line, stream, order and return value."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.board

STAMP = re.compile(r"\[\d\d:\d\d:\d\d\.\d{3}\] ")


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """stderr without time stamps and without the line by which the simulator names itself."""
    first, *rest = STAMP.sub("", done.stderr).splitlines()
    assert first == "W rkllm: this is the rk-gemma simulator, not Rockchip's library: no NPU is used"
    return rest


def sim(text: str) -> str:
    return "simulator:\n" + "".join(f"  {line}\n" for line in text.split("; "))


def test_a_healthy_board(outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny)
    assert answer(done) == {"init": 0, "handle": True, "run": 0, "states": [0] * 6 + [2],
                            "tokens": answer(done)["tokens"]}  # fmt: skip
    assert lines(done) == []
    assert done.stdout.splitlines()[:5] == [
        "I rkllm: rkllm-runtime version: 1.3.0, rknpu driver version: 0.9.8, platform: RK3588",
        f"I rkllm: loading rkllm model from {tiny}",
        "I rkllm: rkllm-toolkit version: 1.3.0, max_context_limit: 128, npu_core_num: 3, "
        "target_platform: RK3588, model_dtype: W8A8",
        "I rkllm: Enabled cpus: [4, 5, 6, 7]",
        "I rkllm: Enabled cpus num: 4",
    ]


def test_1_1_0_prints_one_line(outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny, layout="1.1.0", profile="npu:\n  driver: 0.9.6\n")
    assert answer(done)["run"] == 0
    assert [line for line in done.stdout.splitlines() if "rkllm:" in line] == [
        "I rkllm: rkllm-runtime version: 1.1.0, rknpu driver version: 0.9.6, platform: RK3588"
    ]
    warning = "W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7."
    assert lines(done) == [warning, ""]


MEMORY = ["E RKNN: failed to malloc npu memory, size: {}, flags: 0x2", "E RKNN: load model file error!",
          "E rkllm: rkllm_init failed"]  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("init: iova; init_size: 4022272000",
         ["E RKNN: failed to allocate handle, ret: -1, errno: 14, errstr: Bad address",
          MEMORY[0].format(4022272000), *MEMORY[1:]]),
        ("init: ram",
         ["E RKNN: failed to allocate handle, ret: -1, errno: 12, errstr: Cannot allocate memory",
          MEMORY[0].format(232128512), *MEMORY[1:]]),
        ("init: load_error", ["E RKNN: load model file error!"]),
        ("init: fail", []),
    ],
)  # fmt: skip
def test_init_refuses(profile: str, expected: list[str], outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny, profile=sim(profile))
    assert answer(done) == {"init": -1, "handle": False}
    assert lines(done) == expected
    silent = outside(tiny, profile=sim(profile + "; init_returns: 0"))
    assert answer(silent) == {"init": 0, "handle": False}


def test_1_1_0_says_it_in_its_words(outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny, layout="1.1.0", profile=sim("init: iova"))
    assert lines(done)[-1] == "rknn_init fail! ret=-1"


def test_platform_and_driver(outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny, profile="npu:\n  driver: 0.9.6\n  platform: RK3576\n")
    assert answer(done)["init"] == -1
    assert lines(done) == [
        "W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7",
        "E rkllm: the model's target_platform does not match the real platform",
    ]


def test_context(outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny, arguments=("context=160",))
    assert answer(done)["init"] == -1
    assert lines(done) == ["E rkllm: max_context[160] must be less than the model's max_context_limit[128]"]
    done = outside(tiny, arguments=("prompt=128",))
    assert answer(done)["run"] == -1
    assert lines(done) == ["E rkllm: the length of prompt is greater than max context "
                           "(prompt: 128 tokens, max context: 128)"]  # fmt: skip


def test_no_such_file_and_no_such_profile(outside: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.sim"
    assert lines(outside(missing)) == [f"E rkllm: failed to open '{missing}': 'No such file or directory'"]
    done = outside(tiny, profile=sim("init: wrong"))
    assert answer(done)["init"] == -1 and "simulator.init cannot be 'wrong'" in done.stderr


@pytest.mark.parametrize("profile", ["init: crash", "crash_at_token: 3"])
def test_crash(profile: str, outside: Callable[..., Any], tiny: Path) -> None:
    assert outside(tiny, profile=sim(profile)).returncode == -signal.SIGSEGV


def test_exit(outside: Callable[..., Any], tiny: Path) -> None:
    assert outside(tiny, profile=sim("init: exit")).returncode == 1


@pytest.mark.parametrize("profile", ["init: hang", "hang_at_token: 3"])
def test_hang(profile: str, outside: Callable[..., Any], tiny: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        outside(tiny, profile=sim(profile), timeout=1.0)


def test_error_at_a_token(outside: Callable[..., Any], tiny: Path) -> None:
    done = outside(tiny, profile=sim("error_at_token: 3"))
    assert (answer(done)["run"], answer(done)["states"]) == (-1, [0, 0, 3])
    assert lines(done) == ["E rkllm: matmul(w8a8) run failed"]


@pytest.mark.parametrize(("runs", "states"), [(2, [0] * 6 + [2]), (3, [0, 0, 3])])
def test_tokens_of_spared_runs_do_not_count(
    runs: int, states: list[int], outside: Callable[..., Any], tiny: Path
) -> None:
    done = outside(tiny, profile=sim("error_at_token: 3; spared_runs: 2"), arguments=(f"runs={runs}",))
    assert answer(done)["states"] == states


def test_init_delay(outside: Callable[..., Any], tiny: Path) -> None:
    began = time.monotonic()
    outside(tiny, profile=sim("init_delay_ms: 400"))
    assert time.monotonic() - began > 0.4


def test_logs(outside: Callable[..., Any], tiny: Path) -> None:
    quiet, table, all_lines = (
        [line for line in outside(tiny, environment={"RKLLM_LOG_LEVEL": level}).stdout.splitlines()[5:] if line]
        for level in "012"
    )
    assert len(quiet) == 1
    assert [line.split()[2] for line in table[:-1] if "---" not in line][:4] == [
        "Stage", "Init", "Prefill", "Generate"]  # fmt: skip
    assert "I rkllm: prompt tokens: 2, 10, 20, 30, 40, total: 5" in all_lines
    assert "I rkllm: kv cache matches 0 / 5 tokens of prompt" in all_lines


def test_profiles_in_the_repository(outside: Callable[..., Any], tiny: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "board" / "profiles"
    answers = {}
    for path in sorted(folder.glob("*.yaml")):
        done = outside(tiny, profile=path.read_text())
        answers[path.stem] = answer(done)["init"], "errno: 14" in done.stderr, "errno: 12" in done.stderr
    assert answers["orangepi5-16gb"] == (0, False, False)
    # An old driver refuses large buffers only; no memory is no memory for the smallest model.
    assert answers["rock5b-driver-0.9.6"] == (0, False, False)
    assert answers["npu-full"] == (-1, False, True)
