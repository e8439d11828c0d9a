"""A large file that was interrupted: gone on with inside, if source, options and the file itself are the same."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hosttools import GEMMA2, random_weights, write_checkpoint, write_safetensors

from rk_gemma.checkpoint import Checkpoint, Tensor, reader
from rk_gemma.export import growing
from rk_gemma.export.pipeline import Options, export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = {
    "w8a8": Options("sim", "w8a8", "none"),
    "fp16": Options("sim", "fp16", "none"),
    "Q8_0": Options("none", "w8a8", "Q8_0"),
    "F16": Options("none", "w8a8", "F16"),
}
kinds = pytest.mark.parametrize("kind", sorted(KINDS))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows of the embedding make a block: some 200 blocks in all."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", 10 * 64 * 4)


class Reads:
    """Counts blocks that are read, and interrupts when a number of them is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.until = 0, 0
        self._rows = Tensor._rows
        monkeypatch.setattr(Tensor, "_rows", lambda tensor, *args: self._read(tensor, *args))

    def _read(self, tensor: Tensor, *args: Any) -> Any:
        self.count += 1
        if self.count == self.until:
            raise KeyboardInterrupt
        return self._rows(tensor, *args)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def file_of(directory: Path) -> Path:
    return next(path for path in directory.iterdir() if path.suffix in {".sim", ".gguf"})


def undisturbed(source: Path, target: Path, kind: str, reads: Reads) -> tuple[bytes, int]:
    """The file, and how many blocks it took."""
    before = reads.count
    export(source, target, KINDS[kind])
    return file_of(target).read_bytes(), reads.count - before


def interrupted(source: Path, target: Path, kind: str, reads: Reads, after: int) -> Path:
    """The unfinished file of an export that was stopped at a block."""
    reads.until = reads.count + after
    with pytest.raises(KeyboardInterrupt):
        export(source, target, KINDS[kind])
    reads.until = 0
    partial = target.parent / f".{target.name}.partial"
    assert growing.beside(file_of(partial)).exists()
    return file_of(partial)


@kinds
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_only_the_rest_is_written(share: float, kind: str, tmp_path: Path, reads: Reads) -> None:
    source = write_checkpoint(tmp_path / "src")
    truth, blocks = undisturbed(source, tmp_path / "whole", kind, reads)
    stopped = max(2, int(blocks * share))
    partial = interrupted(source, tmp_path / "out", kind, reads, stopped)
    assert json.loads(growing.beside(partial).read_text())["blocks"] == stopped - 1
    again, rest = undisturbed(source, tmp_path / "out", kind, reads)
    assert again == truth
    assert rest == blocks - (stopped - 1)
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == growing.SUFFIX]


@kinds
def test_stopped_again_and_again(kind: str, tmp_path: Path, reads: Reads) -> None:
    source = write_checkpoint(tmp_path / "src")
    truth, blocks = undisturbed(source, tmp_path / "whole", kind, reads)
    for _ in range(4):
        interrupted(source, tmp_path / "out", kind, reads, blocks // 8)
    again, rest = undisturbed(source, tmp_path / "out", kind, reads)
    assert again == truth and rest < blocks * 0.6


def other_weights(source: Path) -> None:
    """The same size and times, in the same file."""
    path = source / "model.safetensors"
    times = path.stat()
    weights = random_weights(GEMMA2, 8)
    write_safetensors(path, weights)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def another_file(source: Path) -> None:
    """A copy in its place that keeps size, time and content."""
    path = source / "model.safetensors"
    shutil.copy2(path, source / "copy")
    os.replace(source / "copy", path)


def other_norm_eps(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 2e-6}))


@kinds
@pytest.mark.parametrize("change", [other_weights, another_file, other_norm_eps])
def test_another_source_starts_anew(change: Callable[[Path], None], kind: str, tmp_path: Path, reads: Reads) -> None:
    source = write_checkpoint(tmp_path / "src")
    interrupted(source, tmp_path / "out", kind, reads, 50)
    change(source)
    truth, blocks = undisturbed(source, tmp_path / "whole", kind, reads)
    assert undisturbed(source, tmp_path / "out", kind, reads) == (truth, blocks)


@kinds
@pytest.mark.parametrize(
    "damage", ["no note", "note is no JSON", "note lacks facts", "another inode", "head differs", "head of another"]
)
def test_a_file_that_is_not_the_one_starts_anew(damage: str, kind: str, tmp_path: Path, reads: Reads) -> None:
    source = write_checkpoint(tmp_path / "src")
    truth, blocks = undisturbed(source, tmp_path / "whole", kind, reads)
    partial = interrupted(source, tmp_path / "out", kind, reads, 50)
    side = growing.beside(partial)
    note = json.loads(side.read_text())
    if damage == "no note":
        side.unlink()
    elif damage == "note is no JSON":
        side.write_text("{")
    elif damage == "note lacks facts":
        side.write_text("[3]")
    elif damage == "another inode":
        shutil.copy(partial, partial.with_name("copy"))
        os.replace(partial.with_name("copy"), partial)
    elif damage == "head differs":
        raw = bytearray(partial.read_bytes())
        raw[30] ^= 1
        partial.write_bytes(raw)
    else:
        side.write_text(json.dumps({**note, "head": "0" * 64}))
    assert undisturbed(source, tmp_path / "out", kind, reads) == (truth, blocks)


def test_a_killed_export_goes_on_from_the_last_note(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said at the end then; notes are taken on the way."""
    monkeypatch.setattr(growing, "NOTE_BYTES", 20 * 10 * 64 * 4)
    source = write_checkpoint(tmp_path / "src")
    truth, blocks = undisturbed(source, tmp_path / "whole", "w8a8", reads)
    with monkeypatch.context() as patch:
        patch.setattr(growing, "KeyboardInterrupt", ZeroDivisionError, raising=False)
        partial = interrupted(source, tmp_path / "out", "w8a8", reads, 90)
    noted = json.loads(growing.beside(partial).read_text())["blocks"]
    assert 20 <= noted < 89
    assert undisturbed(source, tmp_path / "out", "w8a8", reads) == (truth, blocks - noted)


def test_progress_counts_what_is_there(tmp_path: Path) -> None:
    tensor = Checkpoint.open(write_checkpoint(tmp_path)).tensors["model.embed_tokens.weight"]
    told: list[int] = []
    path, head = tmp_path / "f", b"head"
    with pytest.raises(KeyboardInterrupt), growing.growing(path, head) as file:
        for row, _ in file.rest(tensor, told.append):
            if row == 50:
                raise KeyboardInterrupt
    assert told == [10 * 64 * 2] * 5
    rows = []
    with growing.growing(path, head) as file:
        for row, block in file.rest(tensor, told.append):
            rows += [row]
            assert np.array_equal(block, tensor.read()[row : row + len(block)])
    assert rows == [50, 60, 70, 80, 90, 100, 110, 120]
    assert sum(told[5:]) == 128 * 64 * 2 and told[5] == 50 * 64 * 2
