"""The runtime's own tests, again, as aarch64 code: aarch64 Python, aarch64 wheels, aarch64 simulator, under qemu."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from adapted import export_pair

from rk_gemma_runtime.librkllm.abi import LAYOUTS
from tests.conftest import DATA, ROOT
from tests.emulated.guest import LEDGER
from tests.emulated.rooms import GUESTS, ROOMS
from tests.recording.kit import BUILT, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.timeout(5400)]
RUN = ROOT / "board" / "emulation" / "run"
NOT_BUILT = 125


class Ended(NamedTuple):
    """One pytest inside the sysroot that has come to its end."""

    status: int
    said: str
    ledger: list[dict[str, Any]]

    def of(self, room: str) -> list[dict[str, Any]]:
        """What the ledger says of a room."""
        return [line for line in self.ledger if line.get("room") == room]


@pytest.fixture(scope="session")
def bundles(make_bundle: Callable[..., Path]) -> Path:
    """Exported here, used there: exporting is host work."""
    wanted = [
        (DATA / "tiny-gemma2", "fp16", "F16", "sim"),
        (DATA / "tiny-gemma2", "fp16", "none", "sim"),
        (DATA / "tiny-gemma2", "fp16", "F16", "none"),
        (DATA / "tiny-gemma1", "fp16", "F16", "sim"),
        (ROOT / "demo" / "checkpoint", "w8a8", "Q8_0", "sim"),
        (ROOT / "demo" / "checkpoint", "fp16", "F16", "sim"),
    ]
    homes = {make_bundle(*one).parent for one in wanted}
    export_pair(home := homes.pop())
    return home


@pytest.fixture(scope="session")
def guest() -> None:
    """Skip, saying how to un-skip, where the sysroot or the aarch64 simulator is missing."""
    if not (ROOT / "build/simulator/aarch64/1.3.0/librkllmrt.so").exists():
        pytest.skip("no aarch64 simulator; run: make simulator-arm64")
    probe = subprocess.run([RUN, "true"], capture_output=True, text=True, check=False)
    if probe.returncode == NOT_BUILT:
        pytest.skip(f"no arm64 sysroot ({probe.stderr.strip()}); run: make emulation")
    assert probe.returncode == 0, probe.stderr


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recording libraries of every layout, compiled here: there is no compiler there."""
    home = tmp_path_factory.mktemp("recording")
    for layout in LAYOUTS:
        build(home, layout, "aarch64")
    return home


@pytest.fixture(scope="session")
def ended(guest: None, bundles: Path, recording: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Ended]:
    """Every guest, run side by side to its end."""
    home = tmp_path_factory.mktemp("guests")
    started = [(start(rooms, bundles, recording, home / str(i)), home / str(i)) for i, rooms in enumerate(GUESTS)]
    return [Ended(child.wait(), (folder / "said").read_text(), ledger(folder)) for child, folder in started]


def start(rooms: tuple[str, ...], bundles: Path, recording: Path, folder: Path) -> subprocess.Popen[bytes]:
    """pytest inside the sysroot, on this checkout and the files of these rooms."""
    folder.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_XDIST", "PYTEST_CURRENT"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runtime")]),
        "RK_GEMMA_TEST_BUNDLES": str(bundles),
        BUILT: str(recording),
        "RK_GEMMA_TEST_PATIENCE": "8",
        LEDGER: str(folder / "ledger"),
    }
    files = [file for room in rooms for file in ROOMS[room].files]
    pytest_there = [
        "python3",
        "-m",
        "pytest",
        "-p",
        "tests.emulated.guest",
        "-p",
        "no:cacheprovider",
        "-rs",
        "--timeout=900",
    ]
    command = [RUN, "--bind", bundles, "--bind", recording, "--bind", folder, *pytest_there, "-m", "not slow", *files]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)


def ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines that a guest wrote."""
    path = folder / "ledger"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.usefixtures("guest")
def test_it_is_aarch64() -> None:
    done = subprocess.run([RUN, "uname", "-m"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "aarch64"


@pytest.mark.parametrize("room", ROOMS)
def test_the_runtime_passes(room: str, ended: list[Ended]) -> None:
    (mine,) = (one for one, rooms in zip(ended, GUESTS, strict=True) if room in rooms)
    reports = mine.of(room)
    for report in reports:
        print(report["outcome"], report["test"], report["text"])
    outcomes = [report["outcome"] for report in reports]
    planned = sum(line["planned"].get(room, 0) for line in mine.ledger if "planned" in line)
    assert "failed" not in outcomes
    assert "passed" in outcomes
    assert len(outcomes) == planned, f"{planned - len(outcomes)} tests did not run: {mine.said[-2000:]}"


@pytest.mark.parametrize("number", range(len(GUESTS)))
def test_a_guest_ends_well(number: int, ended: list[Ended]) -> None:
    print(ended[number].said[-6000:])
    assert ended[number].status == 0
