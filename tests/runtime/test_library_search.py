"""A librkllmrt.so that is not there or cannot be used: every path tried is listed, with its reason."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest
from runtimekit import one_line, patient

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm import library

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli

ELF_HERE = {"x86_64": 0x3E, "aarch64": 0xB7}.get(platform.machine(), 0x3E)
ELSEWHERE = {0x3E: (0xB7, "aarch64"), 0xB7: (0x3E, "x86_64")}[ELF_HERE]


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(64)


def bad_libraries(folder: Path) -> dict[str, tuple[Path, str]]:
    """name -> (path, what the message has to say)."""
    contents = {
        "text": (b"no library", "no ELF"),
        "empty": (b"", "no ELF"),
        "machine": (elf(ELSEWHERE[0]), f"built for {ELSEWHERE[1]}"),
        "strange": (elf(0xF3), "another machine"),
        "unversioned": (elf(ELF_HERE), "holds no RKLLM SDK version"),
        "future": (elf(ELF_HERE) + b"RKLLM SDK (version: 9.8.7 | target: Linux)", "9.8.7"),
        "hollow": (elf(ELF_HERE) + b"RKLLM SDK (version: 1.3.0 | target: Linux)", "cannot be loaded"),
    }
    found = {}
    for name, (content, words) in contents.items():
        path = folder / f"{name}.so"
        path.write_bytes(content)
        found[name] = (path, words)
    (folder / "dangling.so").symlink_to(folder / "nowhere.so")
    return {
        **found,
        "dangling": (folder / "dangling.so", "a link that leads nowhere"),
        "directory": (folder, "a directory"),
        "absent": (folder / "absent.so", "not there"),
    }


NAMES = ["text", "empty", "machine", "strange", "unversioned", "future", "hollow", "dangling", "directory", "absent"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_library_says_why(name: str, tmp_path: Path) -> None:
    path, words = bad_libraries(tmp_path)[name]
    with pytest.raises(LibraryError) as caught:
        library.load(library.find(str(path)))
    message = str(caught.value)
    assert words in message
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.reason in {NpuReason.NO_LIBRARY, NpuReason.BAD_LIBRARY}


def test_every_path_tried_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for folder in folders:
        folder.mkdir()
    (folders[1] / library.NAME).write_bytes(b"text")
    (folders[2] / library.NAME).symlink_to("gone")
    monkeypatch.setattr(library, "DIRECTORIES", tuple(map(str, folders)))
    monkeypatch.setattr(library, "_cached", lambda: iter([tmp_path]))
    with pytest.raises(LibraryError) as caught:
        library.find()
    message = str(caught.value)
    for part in (
        "a/librkllmrt.so: not there",
        "b/librkllmrt.so: no ELF",
        "c/librkllmrt.so: a link",
        f"{tmp_path}: a dir",
    ):
        assert part in message
    assert library.VARIABLE in caught.value.remedy
    assert "--librkllmrt" in caught.value.remedy


def test_the_first_usable_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / library.NAME
    good.write_bytes(elf(ELF_HERE))
    monkeypatch.setattr(library, "DIRECTORIES", (str(tmp_path / "absent"), str(tmp_path)))
    assert library.find() == good


def test_the_variable_is_looked_at_and_an_argument_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good.so"
    good.write_bytes(elf(ELF_HERE))
    monkeypatch.setenv(library.VARIABLE, str(tmp_path / "absent.so"))
    with pytest.raises(LibraryError, match=r"absent\.so"):
        library.find()
    assert library.find(str(good)) == good
    monkeypatch.setenv(library.VARIABLE, str(good))
    assert library.find() == good


@pytest.mark.board
@pytest.mark.parametrize("layout", ["1.1.0", "1.3.0"])
def test_the_layout_is_chosen_from_the_file(layout: str, simulator: Callable[[str], Path]) -> None:
    path = simulator(layout)
    assert library.read_version(path) == layout
    assert library.choose_layout(layout, path).name == layout


@pytest.mark.parametrize("version", ["1.0.1", "1.2.0", "1.2.1b1", "1.3.1", "1.3.0-beta", "2"])
def test_an_unknown_release_is_refused_before_a_call(version: str, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=version) as caught:
        library.choose_layout(version, tmp_path)
    assert "1.3.0" in str(caught.value)


@pytest.mark.board
@pytest.mark.parametrize("name", ["machine", "hollow", "absent"])
def test_on_the_command_line_it_is_one_line(name: str, tiny_bundle: Path, tmp_path: Path, cli: Cli) -> None:
    path, words = bad_libraries(tmp_path)[name]
    base = ("run", tiny_bundle, "--ids", "2,5", "--max-tokens", 2, "--threads", 1, "--json", "--librkllmrt", path)
    npu = cli(*base, "--backend", "npu", timeout=patient(60))
    assert (npu.returncode, npu.stdout) == (4, "")
    assert words in one_line(npu.stderr)
    auto = cli(*base, timeout=patient(60))
    answer = json.loads(auto.stdout)
    assert (auto.returncode, answer["backend"]) == (0, "cpu")
    assert answer["degraded"]["cause"] in {"no_library", "bad_library"}
    assert words in one_line(auto.stderr)
