"""Fixtures of the host's tests."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """main(*args): the command line in this process; quicker than `cli`, for what needs no process of its own."""
    from rk_gemma.cli import main as entry

    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def call(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["rk-gemma", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            entry()
        out, err = capfd.readouterr()
        return Done(int(left.value.code or 0), out, err)

    return call


@pytest.fixture
def toolkit(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """toolkit(version) installs a stand-in for that release, once per run; returns its name."""
    import toolkitkit

    from tests.sharing import run_folder

    home = run_folder(pytestconfig, tmp_path_factory) / "toolkits-home"
    monkeypatch.setenv("RK_GEMMA_HOME", str(home))
    return lambda version="1.2.3": toolkitkit.installed(home, version)
