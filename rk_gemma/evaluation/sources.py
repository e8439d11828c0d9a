"""The two sides of a comparison, and the text they are compared on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rk_gemma_runtime.chat import Tokenizer, render
from rk_gemma_runtime.chat.reading import read_conversation
from rk_gemma_runtime.errors import InputError, NpuError, NpuReason, UsageError
from rk_gemma_runtime.model import Model
from rk_gemma_runtime.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from rk_gemma.evaluation.compare import Logits
    from rk_gemma_runtime.bundle import Bundle


def transformers_logits(checkpoint: Path) -> Logits:
    """Run transformers in float32 on the CPU, attention written out (sdpa leaves out the soft cap)."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    model.eval()

    def logits(ids: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        with torch.no_grad():
            found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = model(torch.tensor([ids])).logits[0].numpy()
        return found

    return logits


@contextmanager
def npu_logits(bundle: Bundle, library: str) -> Iterator[Logits]:
    """Run the bundle's NPU weights in librkllmrt's logits mode. Raises NpuError."""
    if bundle.npu_file is None:
        raise NpuError(f"{bundle.directory}: the bundle has no NPU weights", NpuReason.NO_WEIGHTS)
    with Model(bundle, Options(backend="npu", librkllmrt=library, threads=1, force=True)) as model:
        yield model.rows


def read_conversations(path: Path, bundle: Bundle) -> list[tuple[int, ...]]:
    """Read the ids of each line of a JSONL file of conversations (a list of messages, or {"messages": ...})."""
    if bundle.tokenizer_file is None:
        raise UsageError(f"{bundle.directory}: an ids-only bundle cannot read text")
    tokenizer = Tokenizer.open(bundle.tokenizer_file)
    found = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            messages, _ = read_conversation(line, str(path))
            found.append(tuple(render(messages, tokenizer, end="close").ids))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a JSONL file of conversations: {error}") from error
    fit = [ids for ids in found if len(ids) < bundle.manifest.context]
    if not fit:
        raise InputError(f"{path}: no conversation fits the context of {bundle.manifest.context}")
    return fit
