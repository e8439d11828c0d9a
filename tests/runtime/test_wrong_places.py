"""What is given in the place of a bundle, a board or a number: one line that says what to give instead."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import put, readings, tree

from rk_gemma_runtime.cli.talk import extra_needed
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.models import find_shape
from rk_gemma_runtime.memory.plan import NO, make_plan
from rk_gemma_runtime.memory.request import Request
from tests.conftest import CLI, cli_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # each starts programs

VERBS = ("run", "chat", "inspect", "doctor", "tokens")


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_is_exported_first(verb: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    put(tmp_path, "config.json", "{}")
    words = {"run": ["hi"], "tokens": ["--text", "hi"]}.get(verb, [])
    done = cli(verb, tmp_path, *words)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"rk-gemma: error: {tmp_path}: no bundle.yaml here, so not a bundle; export it first:"
        f" rk-gemma export {tmp_path} -o DIR\n"
    )


@pytest.mark.parametrize("name", ["model.gguf", "bundle.yaml", "tokenizer.model"])
def test_a_file_of_a_bundle(name: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    put(tmp_path, "bundle.yaml", "")
    put(tmp_path, name, "")
    done = cli("inspect", tmp_path / name)
    assert done.returncode == 3
    assert done.stderr == (f"rk-gemma: error: {tmp_path / name}: a file, not a bundle directory; give {tmp_path}\n")


@pytest.mark.parametrize("content", [[], ["readme.txt"]])
def test_another_directory(content: list[str], tmp_path: Path, cli: Callable[..., Any]) -> None:
    for name in content:
        put(tmp_path, name, "")
    done = cli("inspect", tmp_path)
    assert done.returncode == 3
    assert done.stderr.endswith("so not a bundle; give the directory that `rk-gemma export` wrote\n")


def test_a_prompt_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    """The bundle is looked at before anything is read: nobody closes stdin here."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [*CLI, "run", str(tmp_path / "nowhere")], stdin=reading, capture_output=True, text=True, check=False,
            env=cli_environment(), timeout=60,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 3 and "no such directory" in done.stderr


@pytest.mark.parametrize("compatible", ["", "raspberrypi,5-model-b\0brcm,bcm2712\0"])
def test_what_is_not_a_board_is_judged_alike(compatible: str, tmp_path: Path) -> None:
    """An empty directory, a PC's root, another maker's board: plan and doctor say no, and no container is blamed."""
    put(tmp_path, "proc/cpuinfo", "")
    if compatible:
        put(tmp_path, "proc/device-tree/compatible", compatible)
    report = examine(readings(tmp_path))
    plan = make_plan(Request(find_shape("gemma-2-2b")), report.board)
    assert report.exit != 0 and plan.verdict == NO
    assert "unknown_platform" in {reason.cause for reason in plan.reasons}
    assert not [cure for cure in cures(plan) if "container" in cure]


def test_a_hidden_device_tree_is_still_shown_to_a_container(tmp_path: Path) -> None:
    plan = make_plan(Request(find_shape("gemma-2-2b")), readings(tree(tmp_path, "container-masked")).board())
    assert [cure for cure in cures(plan) if "container" in cure]


@pytest.mark.parametrize("driver", ["9", "0.9", "0.9.8.1", "v", "0.9.x", "-1.0.0", "..", "latest"])
def test_a_driver_is_three_numbers(driver: str, cli: Callable[..., Any]) -> None:
    done = cli("plan", "gemma-2b", f"--driver={driver}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"rk-gemma: error: unknown --driver {driver!r}; choose a version such as 0.9.8, or none\n"


@pytest.mark.parametrize("extra", ["export", "eval", "plot"])
def test_an_extra_is_installed_from_the_source(extra: str) -> None:
    """The package is not in an index yet."""
    with pytest.raises(UsageError, match=rf"in rk-gemma's source directory: pip install '\.\[{extra}\]'"):
        with extra_needed(extra):
            raise ModuleNotFoundError("no", name="rich")
