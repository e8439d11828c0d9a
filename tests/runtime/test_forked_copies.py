"""A library that forks: its copy holds the worker's socket, pipe and lock, and nobody waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
import pytest
from hostile.kit import builder
from runtimekit import patient, source, wait_until

from rk_gemma_runtime.errors import WorkerDied
from rk_gemma_runtime.jobs import Finish, Request
from rk_gemma_runtime.supervisor import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.board

SOON_S = 10.0
LONG_S = 600.0


@pytest.fixture
def hostile(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """hostile(deed): the library; its copies are let go at the end."""
    leave = tmp_path / "leave"
    monkeypatch.setenv("HOSTILE_LEAVE", str(leave))

    def plan(deed: str) -> str:
        monkeypatch.setenv("HOSTILE", deed)
        return str(builder(tmp_path_factory.getbasetemp() / "hostile")("1.3.0"))

    yield plan
    leave.touch()
    wait_until(lambda: not copies(leave), "no copy is left")


def copies(leave: Path) -> list[psutil.Process]:
    """What runs of the processes that this test has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOSTILE_LEAVE") == str(leave):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_next_load_and_the_close_do_not_wait_for_it(
    hostile: Callable[[str], str], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rk_gemma_runtime.supervisor.process.LINES_S", LONG_S)
    library = hostile("init:copy")
    for _ in range(2):
        backend = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, library))
        items = list(backend.generate(Request((2, 5), 5)))
        assert isinstance(items[-1], Finish)
        began = time.monotonic()
        backend.close()
        assert time.monotonic() - began < patient(SOON_S)


def test_a_death_is_told_all_the_same(hostile: Callable[[str], str], tiny_bundle: Path) -> None:
    library = hostile("run:copy_dies")
    with pytest.raises(WorkerDied) as caught:
        backend = Backend(source("npu", tiny_bundle / "model.sim", 128, 1, library))
        list(backend.generate(Request((2, 5), 5)))
    assert caught.value.status == 1
