"""Where librkllmrt.so is looked for: every path tried is listed, with its reason."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from librarykit import ELSEWHERE, HERE, SDK, elf
from runtimekit import one_line, patient

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm import library
from rk_gemma_runtime.librkllm.abi import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli


@pytest.fixture(autouse=True)
def no_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed on the machine that runs the tests does not count."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(library, "DIRECTORIES", ())
    monkeypatch.setattr(library, "_search_cache", lambda: iter(()))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in "abcd"]
    for folder in made:
        folder.mkdir()
    return made


def test_every_path_tried_is_listed(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (folders[1] / library.NAME).write_bytes(b"text")
    (folders[2] / library.NAME).symlink_to("gone")
    (folders[3] / library.NAME).write_bytes(elf(ELSEWHERE))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{folders[0]}::{folders[0]}")
    monkeypatch.setattr(library, "DIRECTORIES", tuple(map(str, folders[1:])))
    monkeypatch.setattr(library, "_search_cache", lambda: iter([folders[0]]))
    with pytest.raises(LibraryError) as caught:
        library.find()
    expected = [
        f"{folders[0] / library.NAME}: not there",
        f"{folders[1] / library.NAME}: not an ELF file, so no library",
        f"{folders[2] / library.NAME}: a link to gone, which is not there",
        f"{folders[3] / library.NAME}: built for {ELSEWHERE}, this is {HERE}",
        f"{folders[0]}: a directory without {library.NAME}",
    ]
    assert str(caught.value).startswith(
        f"no usable {library.NAME}; tried {expected[0]}; {expected[1]}; {expected[2]}"
    )
    assert str(caught.value).endswith(expected[4])
    assert expected[3] in str(caught.value)
    assert caught.value.reason is NpuReason.NO_LIBRARY
    assert library.VARIABLE in caught.value.remedy
    assert "--librkllmrt" in caught.value.remedy


def test_the_first_usable_one_is_taken(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in folders[1:]:
        (folder / library.NAME).write_bytes(elf())
    monkeypatch.setattr(library, "DIRECTORIES", (str(folders[0]), str(folders[1]), str(folders[2])))
    assert library.find() == folders[1] / library.NAME
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{folders[0]}:{folders[3]}")
    assert library.find() == folders[3] / library.NAME


def test_the_loaders_cache_is_read(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    listing = f"2 libs found\n\tlibz.so.1 (libc6) => /z\n\t{library.NAME} (libc6,AArch64) => {folders[0]}/x.so\n"
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, listing))
    assert list(library._search_cache()) == [folders[0] / "x.so"]


def test_the_variable_is_looked_at_and_an_argument_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good.so"
    good.write_bytes(elf())
    monkeypatch.setenv(library.VARIABLE, str(tmp_path / "absent.so"))
    with pytest.raises(LibraryError, match=r"absent\.so: not there"):
        library.find()
    assert library.find(str(good)) == good
    monkeypatch.setenv(library.VARIABLE, str(good))
    assert library.find() == good


@pytest.mark.board
def test_a_relative_path_is_not_searched_for(
    simulator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a slash the loader would take another file of this name."""
    path = simulator("1.3.0")
    monkeypatch.chdir(path.parent)
    loaded = library.load(library.find(path.name))
    assert os.path.samefile(loaded.cdll._name, path)


def bad_libraries(folder: Path) -> dict[str, tuple[Path, str]]:
    """name -> (path, what the message has to say)."""
    future = SDK.format("9.8.7").encode()
    contents = {
        "machine": (elf(ELSEWHERE), f"built for {ELSEWHERE}"),
        "future": (elf(exports=LAYOUTS["1.3.0"].functions, tail=future), "9.8.7"),
    }
    for name, (content, _) in contents.items():
        (folder / f"{name}.so").write_bytes(content)
    found = {name: (folder / f"{name}.so", words) for name, (_, words) in contents.items()}
    return {**found, "absent": (folder / "absent.so", "not there")}


@pytest.mark.board
@pytest.mark.parametrize("name", ["machine", "future", "absent"])
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
