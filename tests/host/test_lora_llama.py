"""The CPU's adapter in llama.cpp itself, against a checkpoint into which B A was merged."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hosttools import DATA, write_checkpoint
from llamatool import NEW, answers
from lorakit import halves, merged, module_names, write_peft

from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export.lora.sources import LoraSource
from rk_gemma.export.pipeline import Options, export

if TYPE_CHECKING:
    from pathlib import Path

    from hosttools import Arrays

FAMILIES = ("tiny-gemma1", "tiny-gemma2")
ALPHA = 6.0


class Case(NamedTuple):
    """A bundle with an adapter, and GGUFs of the merged checkpoint at full and at half strength."""

    base: Path
    lora: Path
    whole: Path
    half: Path
    checkpoint: Path  # merged, as float32


def model_of(family: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads((DATA / family / "config.json").read_text()), **changes}


def made(family: str, root: Path, **changes: Any) -> Case:
    """`changes` to the base's config.json."""
    model = model_of(family, **changes)
    base: Arrays = {k: t.read() for k, t in Checkpoint.open(DATA / family).tensors.items()}
    weights = halves(model, module_names(range(4)), size=0.25)
    source = LoraSource("style", write_peft(root / "peft", weights, lora_alpha=ALPHA))
    checkpoint = write_checkpoint(root / "base", model, base, "F32")
    export(checkpoint, root / "b", Options("none", cpu="F16", adapters=(source,)))
    for name, strength in (("whole", 1.0), ("half", 0.5)):
        grown = merged(base, weights, alpha=ALPHA * strength)
        export(write_checkpoint(root / f"{name}-m", model, grown, "F32"), root / name, Options("none", cpu="F16"))
    bundle, file = root / "b", "model.gguf"
    return Case(
        bundle / file, bundle / "style.lora.gguf", root / "whole" / file, root / "half" / file, root / "whole-m"
    )


def prompt_of(family: str) -> list[int]:
    ids: list[int] = np.load(DATA / family / "golden.npz")["prompt_4"].tolist()
    return ids


@pytest.mark.parametrize(
    ("family", "changes"),
    [("tiny-gemma1", {}), ("tiny-gemma2", {}), ("tiny-gemma2", {"query_pre_attn_scalar": 40})],
    ids=["gemma", "gemma2", "gemma2 with a scale folded into q_proj"],
)
def test_adapter_is_the_merged_model(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    case = made(family, tmp_path, **changes)
    jobs = [(case.base, None, 1.0), (case.base, case.lora, 0.0), (case.base, case.lora, 1.0), (case.whole, None, 1.0),
            (case.base, case.lora, 0.5), (case.half, None, 1.0)]  # fmt: skip
    base, silent, whole, whole_merged, half, half_merged = answers(prompt_of(family), jobs)
    assert len(base.ids) == NEW
    assert base.logprobs.shape == (NEW, 512)
    assert silent.ids == base.ids
    assert np.array_equal(silent.logprobs, base.logprobs)
    # The merged weights are rounded to float16, the adapter's are not.
    for ours, truth in ((whole, whole_merged), (half, half_merged)):
        assert ours.ids == truth.ids
        assert np.abs(ours.logprobs - truth.logprobs).max() < 0.1
    for one, other in ((base, whole), (base, half), (half, whole)):
        assert np.abs(one.logprobs[0] - other.logprobs[0]).max() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_against_transformers(family: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'rk-gemma[eval]'")
    from rk_gemma.evaluation.sources import transformers_logits

    case = made(family, tmp_path)
    shutil.copy(DATA / family / "generation_config.json", case.checkpoint)
    prompt = prompt_of(family)
    (ours,) = answers(prompt, [(case.base, case.lora, 1.0)])
    logits = transformers_logits(case.checkpoint)(tuple(prompt + ours.ids))[len(prompt) - 1 : -1]
    truth = torch.log_softmax(torch.tensor(logits), dim=1).numpy()
    assert truth.argmax(axis=1).tolist() == ours.ids
    assert np.abs(ours.logprobs - truth).max() < 0.1
