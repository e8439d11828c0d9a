"""LoRA adapters: y = base(x) + scale * scaling * B(A x), one per run, and never another's keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import LAYOUTS
from reference import Reference, read
from simadapter import random_pairs, write_adapter
from simlib import DISTINCT, GET_HIDDEN, GET_LOGITS, Abi, Handle
from simrequest import Given

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simwriter import Checkpoint

pytestmark = pytest.mark.board

IDS = np.random.default_rng(31).integers(3, 256, 70).tolist()
SCALE, SCALING = 0.5, 1.5


@pytest.fixture
def adapters(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> dict[str, Path]:
    base = checkpoints["tiny-gemma2"]
    return {
        "all": write_adapter(tmp_path / "all.sim", base, random_pairs(base, 1), scaling=SCALING),
        "some": write_adapter(tmp_path / "some.sim", base, random_pairs(base, 2, 1, ("q", "down")), scaling=SCALING),
    }


def reference(path: Path, base: Checkpoint, seed: int, rank: int, layers: tuple[str, ...]) -> Reference:
    pairs = random_pairs(base, seed, rank, layers)
    return Reference(read(path), adapter={n: (a, b, SCALE * SCALING) for n, (a, b) in pairs.items()})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_states_under_each_adapter(
    layout: str, abis: dict[str, Abi], model: Callable[[str, str], Path], adapters: dict[str, Path],
    checkpoints: dict[str, Checkpoint],
) -> None:  # fmt: skip
    path, base = model("tiny-gemma2", "fp16"), checkpoints["tiny-gemma2"]
    with Handle(abis[layout], path) as handle:
        for name, file in adapters.items():
            assert handle.load_lora(file, name, SCALE) == 0
        plain, whole, some, again = (
            handle.run(IDS, mode=GET_HIDDEN, lora=name).values for name in (None, "all", "some", None)
        )
    assert plain is not None and again is not None and whole is not None and some is not None
    assert plain.tobytes() == again.tobytes()
    everything = reference(path, base, 1, 4, ("q", "k", "v", "o", "gate", "up", "down"))
    assert np.abs(whole - everything.run(IDS)[1]).max() < 5e-4
    assert np.abs(some - reference(path, base, 2, 1, ("q", "down")).run(IDS)[1]).max() < 5e-4
    assert np.abs(whole - plain).max() > 0.1 < np.abs(some - plain).max()


def test_the_same_bits_on_any_threads_and_blocks(
    abi: Abi, tiny: Path, adapters: dict[str, Path], profile: Callable[[str], Path]
) -> None:
    found = []
    for threads in (1, 3):
        profile(f"threads: {threads}")
        with Handle(abi, tiny) as handle:
            handle.load_lora(adapters["all"], "a", SCALE)
            whole = handle.run(IDS, new=12, sampling=DISTINCT, lora="a")
            handle.clear()
            for count in (1, 2, 3, 40, 69):
                handle.run(IDS[:count], new=1, lora="a")
            again = handle.run(IDS, new=12, sampling=DISTINCT, lora="a")
            assert again.perf["prefill_tokens"] == 1 and again.tokens == whole.tokens
            values = handle.run(IDS, mode=GET_LOGITS, lora="a").values
            found.append((tuple(whole.tokens), b"" if values is None else values.tobytes()))
    assert found[0] == found[1]


def test_the_cache_belongs_to_its_adapter(abi: Abi, tiny: Path, adapters: dict[str, Path]) -> None:
    with Handle(abi, tiny) as handle:
        handle.load_lora(adapters["all"], "a")
        handle.load_lora(adapters["some"], "b")

        def run(lora: str | None) -> tuple[list[int], int]:
            done = handle.run(IDS[:20], new=6, sampling=DISTINCT, lora=lora)
            return done.tokens, done.perf["prefill_tokens"]

        alone = {name: run(name)[0] for name in (None, "a", "b")}
        assert len({tuple(tokens) for tokens in alone.values()}) == 3
        for name in (None, None, "a", "a", "b", None):
            tokens, computed = run(name)
            assert tokens == alone[name]
        assert computed == 20 and run(None)[1] == 1


def test_history_is_computed_again_under_another_adapter(abi: Abi, tiny: Path, adapters: dict[str, Path]) -> None:
    with Handle(abi, tiny) as handle:
        handle.load_lora(adapters["all"], "a")
        first = handle.run(IDS[:10], new=3, keep=1, sampling=DISTINCT)
        second = handle.run(IDS[10:15], new=5, keep=1, lora="a", sampling=DISTINCT)
        assert second.perf["prefill_tokens"] == 10 + 3 + 5
        handle.clear()
        whole = IDS[:10] + first.tokens + IDS[10:15]
        assert handle.run(whole, new=5, lora="a", sampling=DISTINCT).tokens == second.tokens
        handle.clear()
        handle.run(Given(rows=np.ones((3, 64), np.float32)), new=1, keep=1)
        assert handle.run(IDS[:3], new=1, keep=1, lora="a").returned == -1
        assert handle.run(IDS[:3], new=1, keep=1).returned == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_it_says(
    layout: str, abis: dict[str, Abi], tiny: Path, adapters: dict[str, Path], tmp_path: Path,
    said: Callable[[], list[str]],
) -> None:  # fmt: skip
    with Handle(abis[layout], tiny, max_new_tokens=2) as handle:
        said()
        assert handle.load_lora(adapters["all"], "mine", 0.25) == 0
        assert said() == [f"I rkllm: loaded Lora adapter 'mine' from {adapters['all']}, scale: 0.250000"]
        assert handle.load_lora(adapters["some"], "mine") == -1
        assert handle.load_lora(tmp_path / "none", "other") == -1
        assert handle.run(IDS[:3], lora="other").returned == -1
        assert handle.load_lora(tiny, "model") == -1
        assert said() == [
            "E rkllm: Lora adapter 'mine' is already initialized!",
            "E rkllm: Lora adapter path does not exist!",
            "E rkllm: Not Found Lora adapter named: other",
            "E rkllm: expect adapter.type to be 'lora', but got: model",
            f"E rkllm: failed to load lora adapter file from {tiny}",
        ]
        assert handle.run(IDS[:3], lora="mine").returned == 0


@pytest.mark.parametrize("broken", [
    {"family": "gemma"}, {"layers": 3}, {"hidden": 32}, {"pairs": "rank"}, {"pairs": "input"},
    {"pairs": "extra layer"}, {"pairs": "half"}, {"scaling": "nan"}, {"scaling": None}, {"magic": b"GGUF"},
    {"cut": 100},
])  # fmt: skip
def test_files_that_do_not_fit(
    broken: dict[str, Any], abi: Abi, tiny: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path,
    said: Callable[[], list[str]],
) -> None:  # fmt: skip
    base = checkpoints["tiny-gemma2"]
    pairs = random_pairs(base, 3)
    a, b = pairs["blk.1.up"]
    kind = broken.get("pairs")
    if kind in ("rank", "input"):
        pairs["blk.1.up"] = (a[:-1], b) if kind == "rank" else (a[:, :-1], b)
    if kind == "extra layer":
        pairs["blk.4.up"] = (a, b)
    path = tmp_path / "x.sim"
    given = {k: v for k, v in broken.items() if k in ("family", "layers", "hidden", "scaling")}
    write_adapter(path, base, pairs, **given)
    if kind == "half":
        path.write_bytes(path.read_bytes().replace(b"blk.1.up.lora_b", b"blk.1.up.lora_x"))
    if "magic" in broken:
        path.write_bytes(broken["magic"] + path.read_bytes()[4:])
    if "cut" in broken:
        path.write_bytes(path.read_bytes()[: -broken["cut"]])
    with Handle(abi, tiny) as handle:
        said()
        assert handle.load_lora(path, "x") == -1
        lines = said()
        assert handle.run(IDS[:3], new=1).returned == 0 and handle.run(IDS[:3], lora="x").returned == -1
    assert lines[-1] == f"E rkllm: failed to load lora adapter file from {path}" and len(lines) == 2
    if kind in ("rank", "input", "extra layer") or {"family", "layers", "hidden"} & broken.keys():
        assert lines[0] == "E rkllm: model arch and LoRA arch mismatch"
