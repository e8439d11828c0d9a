"""`rk-gemma eval BUNDLE --against CHECKPOINT --text FILE`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rk_gemma_runtime.bundle import MANIFEST, Bundle
from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.errors import CheckpointError
from rk_gemma_runtime.files import replacement


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("eval")(eval_command)


def eval_command(
    bundle: o.BundlePath,
    against: Annotated[Path, typer.Option(metavar="CHECKPOINT", help="What the bundle was exported from.")],
    text: Annotated[Path, typer.Option(metavar="FILE", help="JSONL of conversations to compare on.")],
    librkllmrt: o.Librkllmrt = "",
    store: Annotated[bool, typer.Option(help="Write the figures into the bundle's manifest.")] = True,
    as_json: o.Json = False,
) -> None:
    """Compare the NPU weights with the checkpoint in float32: same top token, KL divergence."""
    with extra_needed("eval"):
        import torch  # noqa: F401
        import transformers

        from rk_gemma.evaluation import compare, sources
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not against.is_dir():
        raise CheckpointError(f"{against}: no such checkpoint directory")
    opened = Bundle.open(bundle)
    prompts = sources.read_conversations(text, opened)
    with sources.npu_logits(opened, librkllmrt) as ours:
        quality = compare.compare(prompts, sources.transformers_logits(against), ours)
    figures = {**asdict(quality), "reference": "transformers float32", "text": text.name}
    figures |= {"top1": round(quality.top1, 5), "mean_kl": round(quality.mean_kl, 6)}
    if store:
        _store(opened, figures)
    _show(figures, as_json)


def _show(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    print(f"positions  {figures['positions']}")
    print(f"top-1      {100 * figures['top1']:.2f} % as in {figures['reference']}")
    print(f"mean KL    {figures['mean_kl']:.5f} nats")


def _store(bundle: Bundle, figures: dict[str, Any]) -> None:
    manifest = replace(bundle.manifest, quality={**bundle.manifest.quality, "npu": figures})
    path = bundle.directory / MANIFEST
    with replacement(path) as file:
        file.write(manifest.dump().encode())
    say(f"{path}: quality noted")
