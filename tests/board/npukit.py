"""Boards and models by size, for the tests of NPU memory; the fixtures come in through conftest."""

from __future__ import annotations

import platform
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from simask import SimAsk
from sparsesim import sparse_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from simask import Answer

    Weights = Callable[..., Path]

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
SCRATCH = 96 * MIB
PROCESS = 75 * MIB
SIZE_ALIGNED, PAGE_ALIGNED = "0.9.6", "0.9.8"
# Models whose buffers stand in public reports.
FIELDS = ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab")
SHAPES = {
    name: dict(zip(FIELDS, numbers, strict=True))
    for name, numbers in {
        "qwen3-4b": (36, 2560, 9728, 32, 8, 128, 151936),
        "chatglm3-6b": (28, 4096, 13696, 32, 2, 128, 65024),
        "qwen2-7b": (28, 3584, 18944, 28, 4, 128, 152064),
        "gemma-2-9b": (42, 3584, 14336, 16, 8, 256, 256000),
    }.items()
}


@pytest.fixture(scope="session")
def kmsg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated kernel's log."""
    return tmp_path_factory.mktemp("kernel") / "kmsg"


@pytest.fixture(scope="session")
def sim(built: Path, kmsg: Path) -> Iterator[SimAsk]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RK_GEMMA_SIM_KMSG", str(kmsg))
        with SimAsk(built / platform.machine() / "1.3.0" / "librkllmrt.so") as asked:
            yield asked


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """weights(bytes): a model with one weight buffer, of that size in w8a8 (a multiple of 1024); or weights(name)."""
    folder = tmp_path_factory.mktemp("sparse")

    def make(what: int | str, **options: Any) -> Path:
        path = folder / f"{what}-{'-'.join(map(str, options.values()))}.sim"
        if path.exists():
            return path
        if isinstance(what, str):
            return sparse_model(path, **SHAPES[what], **options)
        layer = {"layers": 1, "hidden": 1024, "ffn": 1024, "heads": 8, "kv_heads": 1, "head_dim": 128}
        rows, rest = what // 1024 - 2 * 1024 - 2 * 128 - 3 * 1024, what % 1024
        assert rest == 0
        return sparse_model(path, **layer, vocab=rows, **options)

    return make


def gib(size: int) -> str:
    """Exactly."""
    return str(Decimal(size) / GIB)


def profile(memory: dict[str, object] | None = None, occupied: dict[int, str] | None = None, **npu: object) -> str:
    lines = ["npu:", *(f"  {key}: {value}" for key, value in npu.items())]
    if occupied:
        lines += ["  occupied:", *(f"    {domain}: {sizes}" for domain, sizes in occupied.items())]
    lines += ["memory:", *(f"  {key}: {value}" for key, value in (memory or {}).items())] if memory else []
    return "\n".join(lines) + "\n"


def refused(answer: Answer, errno: int, size: int) -> bool:
    assert (answer.returned, answer.loads, answer.killed) == (-1, False, False), answer
    return (answer.errno, answer.size) == (errno, size)


def total(name: str) -> int:
    """Bytes of every linear weight in int8."""
    s = SHAPES[name]
    layer = s["hidden"] * (2 * s["heads"] * s["head_dim"] + 2 * s["kv_heads"] * s["head_dim"] + 3 * s["ffn"])
    return layer * s["layers"] + s["vocab"] * s["hidden"]
