"""A tiny Gemma 2 with a LoRA adapter, and the same one with the adapter merged into its weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hosttools import DATA, write_checkpoint

NAMES = ("adapted", "merged")
ADAPTER = "style"


def adapted_pair(folder: Path) -> tuple[Path, Path]:
    """(bundle with the adapter, bundle with it merged), float32; made here, or where tests under emulation find
    them."""
    given = os.environ.get("RK_GEMMA_TEST_BUNDLES")
    if given:
        return Path(given) / NAMES[0], Path(given) / NAMES[1]
    return export_pair(folder)


def export_pair(folder: Path) -> tuple[Path, Path]:
    """Export both into `folder`."""
    from lorakit import halves, merged, module_names, write_peft

    from rk_gemma.checkpoint import Checkpoint
    from rk_gemma.export.lora.sources import LoraSource
    from rk_gemma.export.pipeline import Options, export

    source = DATA / "tiny-gemma2"
    model = json.loads((source / "config.json").read_text())
    base = {name: tensor.read() for name, tensor in Checkpoint.open(source).tensors.items()}
    weights = halves(model, module_names(range(4)), size=0.25)
    peft = LoraSource(ADAPTER, write_peft(folder / "peft", weights))
    plain = write_checkpoint(folder / "plain", model, base, "F32")
    grown = write_checkpoint(folder / "grown", model, merged(base, weights), "F32")
    pair = folder / NAMES[0], folder / NAMES[1]
    export(plain, pair[0], Options("sim", "fp16", "F16", adapters=(peft,)))
    export(grown, pair[1], Options("sim", "fp16", "F16"))
    return pair
