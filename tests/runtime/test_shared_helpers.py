"""Small things that several rooms use: versions, one printable line, a file that is there whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rk_gemma_runtime.board import facts
from rk_gemma_runtime.board.versions import release_of, version_key, version_of
from rk_gemma_runtime.files import replacement
from rk_gemma_runtime.librkllm import options
from rk_gemma_runtime.printable import one_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("text", "numbers"), [
    ("0.9.8", (0, 9, 8)), ("v0.9", (0, 9, 0)), ("1.2.3.4", (1, 2, 3, 4)), ("", ()), ("1.x", ()), ("1.2.1b1", ()),
    ("1." + "9" * 5000, ()),
])  # fmt: skip
def test_a_drivers_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version_of(text) == numbers


@pytest.mark.parametrize(("text", "numbers"), [
    ("1.2.1b1", (1, 2, 1)), ("1.2.1", (1, 2, 1)), ("1.3", (1, 3, 0)), ("unknown", ()), ("1.2.3.4", ()),
    ("1.2." + "9" * 5000, ()),
])  # fmt: skip
def test_a_releases_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert release_of(text) == numbers
    assert version_key(text)[:3] == numbers


def test_one_line_stays_one_line() -> None:
    assert one_line("a\nb\x1b[1m\udc80 ä") == "a\\nb\\x1b[1m\\udc80 ä"


def test_the_binding_counts_domains_as_the_board_does() -> None:
    """The binding knows no other room, so it has a number of its own."""
    assert options.DOMAINS == facts.DOMAINS


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = home / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacement(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [p.read_text() for p in home.iterdir()] == ["old"]
    with replacement(path, 0o600) as file:
        file.write(b"new")
    assert [p.read_text() for p in home.iterdir()] == ["new"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacement(tmp_path / "none" / "file"):
        pass
