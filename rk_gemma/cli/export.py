"""`rk-gemma export SRC -o DIR`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rk_gemma.cli import conversion as c
from rk_gemma.cli.stopping import told_when_stopped
from rk_gemma_runtime.bundle import Manifest
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("export")(export_command)


def export_command(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Hugging Face checkpoint, or a GGUF in 16 bits.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Bundle to write; must not exist.")],
    npu: Annotated[
        str, typer.Option(help="NPU weights: rkllm (for a board), sim (for the simulator) or none.")
    ] = "sim",
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
    toolkit: c.Toolkit = "",
    cores: c.Cores = 3,
    level: c.Level = 1,
    hybrid: c.Hybrid = 0.0,
    algorithm: c.Algorithm = "normal",
    device: c.Device = "cpu",
    loading: c.Loading = "",
    calibration: c.Calibration = "",
    tokenizer: c.Words = True,
    embedding: c.Table = True,
    force: c.Force = False,
) -> None:
    """Turn a Gemma 1 or 2 checkpoint into a bundle."""
    with told_when_stopped() as on_stop:
        with extra_needed("export"):
            from rk_gemma.export.lora.sources import LoraSource
            from rk_gemma.export.pipeline import Options, export
            from rk_gemma.toolkit.settings import Settings

        settings = Settings(
            toolkit, cores, level, hybrid, algorithm, device, loading, calibration, tokenizer, embedding, force
        )
        adapters = tuple(LoraSource.parse(text) for text in lora or ())
        chosen = Options(npu, dtype.lower(), cpu, "", licence, context, adapters, template, settings)
        bundle = export(source, output, chosen, warn=lambda line: say(f"warning: {line}"), on_stop=on_stop)
    total = sum(f.bytes for f in bundle.manifest.files.values())
    say(f"{output}: {', '.join(sorted(bundle.manifest.files))} ({total / 1e6:.1f} MB)")
    if bundle.manifest.npu and bundle.manifest.npu.library:
        say(_next(output, bundle.manifest))


def _next(output: Path, manifest: Manifest) -> str:
    """Say how the bundle gets to a board and is started there."""
    name, npu = output.absolute().name, manifest.npu
    made = next((a.name for a in manifest.adapters if a.source.startswith("rkllm-toolkit")), "")
    adapter = f" --adapter {made}" if made else ""
    library = npu.library if npu else ""
    return (
        f"to a board with {library}: `rsync -a {shlex.quote(str(output))} USER@BOARD:` and there"
        f" `rk-gemma chat {shlex.quote(name)}{adapter}`"
    )
