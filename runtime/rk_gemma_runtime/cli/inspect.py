"""`rk-gemma inspect BUNDLE|FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rk_gemma_runtime.bundle import MANIFEST, Bundle
from rk_gemma_runtime.cli import options as o
from rk_gemma_runtime.cli.talk import say
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from rk_gemma_runtime.bundle import Adapter, Manifest, NpuPart


def configure(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("inspect")(inspect_command)


def inspect_command(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|FILE", help="A bundle's directory, or an .rkllm file.")],
    verify: Annotated[bool, typer.Option("--verify", help="Hold every file against its sha256.")] = False,
    report: Annotated[bool, typer.Option("--report", help="An .rkllm's first and last bytes and its keys.")] = False,
    as_json: o.Json = False,
) -> None:
    """Show what a bundle or an .rkllm file holds, and whether it is whole."""
    if path.is_file() and path.suffix != ".rkllm" and (path.parent / MANIFEST).is_file():
        Bundle.open(path)  # says which directory to give
    if not path.is_dir():
        from rk_gemma_runtime.cli.rkllm import inspect_file

        if verify:
            raise UsageError("--verify is for bundles: a file alone has no sha256 to be held against")
        inspect_file(path, report, as_json)
        return
    if report:
        raise UsageError("--report is for an .rkllm file")
    opened = Bundle.open(path)
    if verify:
        opened.verify(lambda name: say(f"checking {name}"))
    tree = opened.manifest.tree()
    if as_json:
        print(json.dumps({**tree, "verified": verify}, ensure_ascii=False))
        return
    for line in _lines(opened.manifest, tree):
        print(line)
    print(f"files      {'all as the manifest says' if verify else 'sizes right (--verify reads them)'}")


def _adapter(adapter: Adapter) -> str:
    backends = " and ".join(word for word, file in (("npu", adapter.npu), ("cpu", adapter.cpu)) if file)
    return f"{adapter.name} (rank {adapter.rank}, {backends})"


def _npu(part: NpuPart) -> str:
    words = (part.dtype, part.platform, part.options, part.library and f"needs {part.library}")
    return f"{part.file}: {', '.join(filter(None, words))}"


def _lines(manifest: Manifest, tree: dict[str, Any]) -> list[str]:
    model = manifest.model
    npu = _npu(manifest.npu) if manifest.npu else "none"
    cpu = f"{manifest.cpu.file}: {manifest.cpu.quant}" if manifest.cpu else "none"
    size = sum(f.bytes for f in manifest.files.values())
    quality = ", ".join(f"{k} {v}" for k, v in tree["quality"].items()) or "not measured"
    adapters = ", ".join(_adapter(a) for a in manifest.adapters) or "none"
    return [
        f"model      {model.family} {model.size} {model.variant}".rstrip(),
        f"source     {model.source} {model.revision}".rstrip(),
        f"licence    {model.licence or 'not stated'}",
        f"context    {manifest.context} tokens",
        f"npu        {npu}",
        f"cpu        {cpu}",
        f"tokenizer  {manifest.tokenizer or 'none: token ids only'}",
        f"adapters   {adapters}",
        f"quality    {quality}",
        f"size       {size / 1e6:.1f} MB in {len(manifest.files)} files",
    ]
