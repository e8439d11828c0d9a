"""`rk-gemma export SRC -o DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rk_gemma.cli.stopping import told_when_stopped
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("export")(export_command)


def export_command(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Directory of a Hugging Face Gemma checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Bundle to write; must not exist.")],
    npu: Annotated[str, typer.Option(help="NPU weights: sim (for the simulator) or none.")] = "sim",
    dtype: Annotated[str, typer.Option(help="w8a8, w8a8_g128, w8a8_g256, w8a8_g512 or fp16.")] = "w8a8",
    cpu: Annotated[str, typer.Option(help="CPU weights: Q8_0, F16 or none.")] = "Q8_0",
    context: Annotated[
        int, typer.Option(min=0, help=f"Tokens of prompt and answer; 0: the model's, at most {DEFAULT_CONTEXT}.")
    ] = 0,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora-adapter", metavar="[NAME=]DIR", help="PEFT LoRA adapter to take along; may be given again."
        ),
    ] = None,
    template: Annotated[
        str, typer.Option("--chat-template", help="auto: as the checkpoint says; gemma; none: token ids only.")
    ] = "auto",
    licence: Annotated[str, typer.Option(help="Licence to note in the manifest.")] = "",
) -> None:
    """Turn a Gemma 1 or 2 checkpoint into a bundle."""
    with told_when_stopped() as on_stop:
        with extra_needed("export"):
            from rk_gemma.export.lora.sources import LoraSource
            from rk_gemma.export.pipeline import Options, export

        adapters = tuple(LoraSource.parse(text) for text in lora or ())
        chosen = Options(npu, dtype, cpu, licence=licence, context=context, adapters=adapters, template=template)
        bundle = export(source, output, chosen, warn=lambda line: say(f"warning: {line}"), on_stop=on_stop)
    total = sum(f.bytes for f in bundle.manifest.files.values())
    say(f"{output}: {', '.join(sorted(bundle.manifest.files))} ({total / 1e6:.1f} MB)")
