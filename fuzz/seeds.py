"""Where fuzzing begins: real logs, the files of every described board, configs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.profile import find_profile, load_tree, profile_names
from rk_gemma_runtime.doctor.tree import write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

CUT = b"\n%%\n"
DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


def files_of(profile: str) -> dict[str, bytes]:
    """The files that a described board shows, by name, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tree(load_tree(find_profile(profile)), root)
        found = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def write_seeds(target: str, folder: Path) -> None:
    """One file per seed."""
    for number, seed in enumerate(_seeds(target)):
        (folder / f"seed{number}").write_bytes(seed)


def _seeds(target: str) -> Iterator[bytes]:
    if target in {"explain", "lines"}:
        yield from _logs()
    elif target == "doctor":
        yield from (CUT.join(files_of(name).values()) for name in profile_names())
    elif target == "profile":
        yield from (find_profile(name).read_bytes() for name in profile_names())
    else:
        yield from (path.read_bytes() for path in sorted(DATA.rglob("config*.json")))


def _logs() -> Iterator[bytes]:
    for path in sorted((DATA / "failures").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            text = record.get("log") or record.get("lines") or ""
            yield ("\n".join(text) if isinstance(text, list) else str(text)).encode()
