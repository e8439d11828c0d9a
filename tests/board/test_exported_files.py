"""What the exporter writes, computed by the simulator, against the independent NumPy reading of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from simlib import GET_LOGITS, Handle
from test_arithmetic import agree_until_a_tie

from rk_gemma.export.pipeline import Options, export

if TYPE_CHECKING:
    from simlib import Abi

pytestmark = pytest.mark.board
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dtype", ["w8a8", "w8a8_g128"])
def test_the_demo_in_int8(dtype: str, abi: Abi, tmp_path: Path) -> None:
    export(ROOT / "demo" / "checkpoint", tmp_path / "demo", Options("sim", dtype, "none"))
    ids = [2, *np.random.default_rng(11).integers(500, 2000, 40).tolist()]
    with Handle(abi, tmp_path / "demo" / "model.sim") as handle:
        agree_until_a_tie(tmp_path / "demo" / "model.sim", ids, handle.run(ids, mode=GET_LOGITS).values)


@pytest.mark.parametrize("name", ["tiny-gemma1", "tiny-gemma2"])
def test_golden_logits(name: str, abi: Abi, tmp_path: Path, golden: dict[str, Any]) -> None:
    export(ROOT / "tests/data/gemma" / name, tmp_path / name, Options("sim", "fp16", "none"))
    with Handle(abi, tmp_path / name / "model.sim") as handle:
        for i in range(8):
            values = handle.run(golden[name][f"prompt_{i}"].tolist(), mode=GET_LOGITS).values
            assert values is not None
            assert np.abs(values - golden[name][f"logits_{i}"]).max() < 5e-3
