"""Prompt cache files: saved after a prompt, loaded into another handle, and refused when they do not fit."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import LAYOUTS
from simadapter import random_pairs, write_adapter
from simlib import DISTINCT, Abi, Handle
from simrequest import Given

if TYPE_CHECKING:
    from collections.abc import Callable

    from simwriter import Checkpoint

pytestmark = pytest.mark.board

IDS = np.random.default_rng(41).integers(3, 256, 40).tolist()
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from simlib import Abi, Handle
table, library, model, cache = sys.argv[1:]
handle = Handle(Abi(Path(table), Path(library)), model, max_new_tokens=2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
print(handle.run([5] * 40, save=cache).returned)
"""


def load(handle: Handle, path: Path | str) -> int:
    return handle.texts("load_prompt_cache", str(path))


def matched(lines: list[str]) -> list[str]:
    return [line.removeprefix("I rkllm: kv cache matches ") for line in lines if "kv cache matches" in line]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cache_from_another_handle(
    layout: str, abis: dict[str, Abi], tiny: Path, tmp_path: Path, said: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same tokens, and only what differs is computed; in 1.1 nothing else is ever reused."""
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    path, params = tmp_path / "prompt.bin", {"max_new_tokens": 8, "presence_penalty": 1000.0}
    with Handle(abis[layout], tiny, **params) as handle:
        whole = handle.run(IDS).tokens
        said()
        handle.run(IDS[:30], save=path)
        assert f"I rkllm: saved prompt cache to {path}" in said()
    with Handle(abis[layout], tiny, **params) as handle:
        said()
        assert load(handle, path) == 0
        assert said() == [
            f"I rkllm: load prompt cache from '{path}'",
            "I rkllm: loaded a prompt cache with prompt size of 30 tokens",
        ]
        assert handle.run(IDS).tokens == whole
        assert matched(said()) == ["30 / 40 tokens of prompt"]
        handle.run([*IDS[:7], 4, 4])
        handle.run(IDS[:30])
        assert matched(said()) == ["7 / 9 tokens of prompt", "29 / 30 tokens of prompt"]
        assert handle.call("release_prompt_cache") == 0
        if layout != "1.1.0":
            handle.clear()
        assert handle.run(IDS).tokens == whole
        assert matched(said()) == ([] if layout == "1.1.0" else ["0 / 40 tokens of prompt"])


def test_the_longer_of_two_caches_serves(abi: Abi, tiny: Path, tmp_path: Path) -> None:
    with Handle(abi, tiny) as handle:
        handle.run(IDS[:20], new=1, save=tmp_path / "c")
        handle.clear()
        load(handle, tmp_path / "c")
        assert handle.run(IDS[:30], new=1).perf["prefill_tokens"] == 10
        assert handle.run(IDS[:35], new=1).perf["prefill_tokens"] == 5
        assert handle.run([9], new=1).perf["prefill_tokens"] == 1
        assert handle.run(IDS[:35], new=1).perf["prefill_tokens"] == 15


def test_rows_and_adapters(abi: Abi, tiny: Path, tmp_path: Path, checkpoints: dict[str, Checkpoint]) -> None:
    base, rows = checkpoints["tiny-gemma2"], np.random.default_rng(1).normal(0, 1, (12, 64)).astype(np.float32)
    adapter = write_adapter(tmp_path / "a.sim", base, random_pairs(base, 4))
    with Handle(abi, tiny) as handle:
        handle.load_lora(adapter, "a")
        tokens = handle.run(Given(rows=rows), new=6, sampling=DISTINCT, lora="a", save=tmp_path / "c").tokens
    with Handle(abi, tiny) as handle:
        handle.load_lora(adapter, "other name")
        handle.load_lora(adapter, "other scale", 0.5)
        load(handle, tmp_path / "c")
        for lora, computed in (("other name", 1), ("other scale", 12), (None, 12)):
            handle.clear()
            run = handle.run(Given(rows=rows), new=6, sampling=DISTINCT, lora=lora)
            assert run.perf["prefill_tokens"] == computed
            assert (run.tokens == tokens) is (computed == 1)


def test_the_default_path(abi: Abi, tiny: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Handle(abi, tiny) as handle:
        handle.run(IDS, new=1, save="")
    assert "I rkllm: prompt_cache_save_path is null, save prompt cache to ./prompt_cache.bin" in said()
    assert [path.name for path in tmp_path.iterdir()] == ["prompt_cache.bin"]


def damaged(blob: bytes, how: str) -> bytes:
    if how == "another version":
        return blob[:8] + b"\2" + blob[9:]
    if how == "a count beyond the file":
        return blob[:12] + b"\xff\xff\0\0" + blob[16:]
    if how == "a bit of a value":
        return blob[:-100] + bytes([blob[-100] ^ 4]) + blob[-99:]
    return {"truncated": blob[:-1], "longer": blob + b"\0", "its header": blob[:40],
            "foreign": b"GGUF" + bytes(200)}[how]  # fmt: skip


@pytest.mark.parametrize("how", ["truncated", "longer", "its header", "foreign", "another version",
                                 "a count beyond the file", "a bit of a value"])  # fmt: skip
def test_files_that_are_none(how: str, abi: Abi, tiny: Path, tmp_path: Path, said: Callable[[], list[str]]) -> None:
    path = tmp_path / "c"
    with Handle(abi, tiny) as handle:
        handle.run(IDS, new=1, save=path)
        path.write_bytes(damaged(path.read_bytes(), how))
        said()
        assert load(handle, path) == -1
        assert said() == [f"I rkllm: load prompt cache from '{path}'",
                          f"E rkllm: failed to load prompt cache from {path}"]  # fmt: skip


def test_missing_empty_and_anothers(
    abi: Abi, tiny: Path, model: Callable[[str, str], Path], tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    (tmp_path / "empty").touch()
    with Handle(abi, model("tiny-gemma2", "fp16")) as handle:
        handle.run(IDS, new=1, save=tmp_path / "other")
    with Handle(abi, tiny) as handle:
        said()
        assert [load(handle, tmp_path / name) for name in ("none", "empty", "other")] == [-1, -1, -1]
        assert [line for line in said() if line.startswith("E")] == [
            f"E rkllm: prompt cache file '{tmp_path}/none' does not exist",
            f"E rkllm: prompt cache file '{tmp_path}/empty' is empty",
            "E rkllm: the prompt dose not match the current model[gemma2]",
            f"E rkllm: failed to load prompt cache from {tmp_path}/other",
        ]
        assert handle.run(IDS, new=1).perf["prefill_tokens"] == 40


def test_a_full_disk_leaves_the_old_file(abi: Abi, built: Path, tiny: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands in for it."""
    path = tmp_path / "c"
    path.write_bytes(b"old")
    table = Path(__file__).resolve().parents[2] / "board/simulator/abi/rkllm-1.3.0.json"
    library = built / platform.machine() / "1.3.0" / "librkllmrt.so"
    command = [sys.executable, "-c", FULL_DISK, table, library, tiny, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert json.loads(done.stdout.splitlines()[-1]) == 0, done.stderr
    assert f"E rkllm: failed to save prompt cache to {path}: File too large" in done.stderr
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_shifted_cache_is_saved_as_far_as_it_is_sound(abi: Abi, tiny: Path, tmp_path: Path) -> None:
    with Handle(abi, tiny, max_context_len=32, n_keep=4) as handle:
        handle.run(IDS[:20], new=30, keep=1)
        handle.run(IDS[20:24], new=1, keep=1, save=tmp_path / "c")
        handle.clear()
        load(handle, tmp_path / "c")
        assert handle.run(IDS[:20], new=1).perf["prefill_tokens"] == 16
