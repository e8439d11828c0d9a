"""`rk-gemma pack FILE... -o DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rk_gemma.cli.stopping import told_when_stopped
from rk_gemma_runtime.cli.talk import extra_needed, say
from rk_gemma_runtime.errors import UsageError

# What no file tells; the same words for `pull`.
Family = Annotated[str, typer.Option("--family", help="gemma or gemma2, where no file tells.")]
Size = Annotated[str, typer.Option("--size", help="Such as 2b, 7b, 9b, 27b.")]
Variant = Annotated[str, typer.Option("--variant", help="it, or base: a base model continues a text.")]
Context = Annotated[int, typer.Option("--context", min=0, help="Tokens of prompt and answer; 0: as the files say.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Of the .rkllm: w8a8, w8a8_g128, ..., fp16.")]
Cores = Annotated[int, typer.Option("--npu-cores", min=0, help="That the .rkllm was made for.")]
Toolkit = Annotated[str, typer.Option("--toolkit", metavar="X.Y.Z", help="That wrote the .rkllm.")]
Template = Annotated[str, typer.Option("--chat-template", help="auto, gemma or none.")]
Licence = Annotated[str, typer.Option("--licence", help="Licence to note in the manifest.")]
Force = Annotated[bool, typer.Option("--force", help="Join parts that seem to be two models.")]


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("pack")(pack_command)


def pack_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="An .rkllm, a GGUF, a tokenizer.model.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Bundle to write; must not exist.")],
    tokenizer: Annotated[str, typer.Option(help="A tokenizer.model; none: token ids only.")] = "",
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files; without it they are linked.")] = False,
    move: Annotated[bool, typer.Option("--move", help="Move the files.")] = False,
    family: Family = "", size: Size = "", variant: Variant = "", context: Context = 0, dtype: Dtype = "",
    cores: Cores = 0, toolkit: Toolkit = "", template: Template = "auto", licence: Licence = "", force: Force = False,
) -> None:  # fmt: skip
    """Make a bundle from files at hand: hard links where that can be, else copies."""
    if copy and move:
        raise UsageError("--copy and --move: choose one")
    with told_when_stopped() as on_stop, extra_needed("hub"):
        from rk_gemma.pack.pack import pack
        from rk_gemma.pack.wishes import Wishes

        wishes = Wishes(family, size, variant, context, dtype, cores, toolkit, template, licence, force)
        more = [Path(tokenizer)] if tokenizer and tokenizer != "none" else []
        bundle = pack(
            [*files, *more], output, wishes, "copy" if copy else "move" if move else "link", tokenizer == "none",
            warn=lambda line: say(f"note: {line}"), on_stop=on_stop,
        )  # fmt: skip
    total = sum(f.bytes for f in bundle.manifest.files.values())
    say(f"{output}: {', '.join(sorted(bundle.manifest.files))} ({total / 1e6:.1f} MB)")
