"""The runtime's own tests, again, as aarch64 code: aarch64 Python, aarch64 wheels, aarch64 simulator, under qemu."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from adapted import export_pair

from tests.conftest import DATA, ROOT, bundle_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.emulated, pytest.mark.slow]
RUN = ROOT / "board" / "emulation" / "run"
NOT_BUILT = 125


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported here, used there: exporting is host work."""
    from rk_gemma.export.pipeline import Options, export

    home = tmp_path_factory.mktemp("bundles")
    wanted = [
        (DATA / "tiny-gemma2", "fp16", "F16", "sim"),
        (DATA / "tiny-gemma2", "fp16", "none", "sim"),
        (DATA / "tiny-gemma2", "fp16", "F16", "none"),
        (DATA / "tiny-gemma1", "fp16", "F16", "sim"),
        (ROOT / "demo" / "checkpoint", "w8a8", "Q8_0", "sim"),
    ]
    for checkpoint, dtype, cpu, npu in wanted:
        export(checkpoint, home / bundle_name(checkpoint, dtype, cpu, npu), Options(npu, dtype, cpu))
    export_pair(home)
    return home


@pytest.fixture(scope="module")
def guest() -> Iterator[None]:
    """Skip, saying how to un-skip, where the sysroot or the aarch64 simulator is missing."""
    if not (ROOT / "build/simulator/aarch64/1.3.0/librkllmrt.so").exists():
        pytest.skip("no aarch64 simulator; run: make simulator-arm64")
    probe = subprocess.run([RUN, "true"], capture_output=True, text=True, check=False)
    if probe.returncode == NOT_BUILT:
        pytest.skip(f"no arm64 sysroot ({probe.stderr.strip()}); run: make emulation")
    assert probe.returncode == 0, probe.stderr
    yield


def emulated(bundles: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest inside the sysroot, on this checkout."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runtime")]),
        "RK_GEMMA_TEST_BUNDLES": str(bundles),
        "RK_GEMMA_TEST_PATIENCE": "5",
    }
    command = [RUN, "--bind", str(bundles), "python3", "-m", "pytest", "-p", "no:cacheprovider", "-rs", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("guest")
def test_it_is_aarch64(bundles: Path) -> None:
    done = subprocess.run([RUN, "uname", "-m"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "aarch64"


# What is left out is the same code for every machine: the command line's many ways to be wrong, terminals, signals.
ROOMS = {
    "layouts": ["tests/abi", "tests/runtime/test_identification.py"],
    "every feature of every layout": ["tests/runtime/test_matrix.py"],
    # Three layouts of six: what differs between the others is in the room above.
    "inputs and traps": [
        "tests/runtime/test_inputs.py", "tests/runtime/test_traps.py", "tests/runtime/test_adapter_answers.py",
        "-k", "not 1.2.0 and not 1.2.1b1 and not 1.3.1",
    ],
    "logits and greedy ids": ["tests/runtime/test_greedy.py"],
    "chat": [
        "tests/runtime/test_golden_chat.py", "tests/runtime/test_prefix_reuse.py", "tests/runtime/test_history.py",
        "tests/runtime/test_text_stream.py",
    ],
    "refusals and fallback": ["tests/runtime/test_refusals.py", "tests/runtime/test_breakdowns.py"],
    "doctor": [
        "tests/runtime/test_doctor_readers.py", "tests/runtime/test_doctor_findings.py",
        "-k", "not prefix and not bytes",
    ],
    "wire and worker": [
        "tests/runtime/test_wire.py", "tests/runtime/test_stopping.py", "tests/runtime/test_open_doors.py",
    ],
}  # fmt: skip


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("room", ROOMS)
def test_the_runtime_passes(room: str, bundles: Path) -> None:
    done = emulated(bundles, *ROOMS[room], "-m", "not slow")
    print(done.stdout[-6000:], done.stderr[-2000:])
    assert done.returncode == 0
    assert " passed" in done.stdout
