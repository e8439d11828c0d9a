"""Fixtures of the host's tests."""

from __future__ import annotations

import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hubserver import HubServer


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
def only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection and every look-up of a name that would leave this machine."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def here(host: object) -> bool:
        return str(host) == "localhost" or str(host).startswith("127.") or str(host) == "::1"

    def look_up_here(host: Any, *args: Any, **options: Any) -> Any:
        assert here(host), f"asks for the address of {host}"
        return look_up(host, *args, **options)

    def connect_here(self: socket.socket, address: Any) -> None:
        assert isinstance(address, (str, bytes)) or here(address[0]), f"connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    monkeypatch.setattr(socket.socket, "connect", connect_here)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def hub(only_here: None) -> Iterator[HubServer]:
    """A hub on this machine without repositories (tests/host/hubserver.py)."""
    from hubserver import HubServer

    with HubServer() as server:
        yield server


@pytest.fixture
def download(hub: HubServer, tmp_path: Path) -> Callable[..., bytes]:
    """download(file=MODEL): the bytes that the real client ends up with; options as for hf_hub_download."""
    import huggingface_hub
    from hubask import MODEL, NAME

    def fetch(file: str = MODEL, token: str | bool = False, **options: Any) -> bytes:
        given = {"endpoint": hub.url, "cache_dir": tmp_path / "cache", "token": token, **options}
        with open(huggingface_hub.hf_hub_download(NAME, file, **given), "rb") as got:
            return got.read()

    return fetch


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the code under test would have slept; it does not."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


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
