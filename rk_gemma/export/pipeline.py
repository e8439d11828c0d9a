"""The export: checkpoint in, bundle out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from rk_gemma import __version__
from rk_gemma.export.lora.parts import Adapters
from rk_gemma.export.model import Model, open_model
from rk_gemma.export.npu import Converter, npu_writer
from rk_gemma.export.progress import reporter
from rk_gemma.export.space import check_space
from rk_gemma.export.staging import Staging, refuse_existing, staging
from rk_gemma.export.text import WISHES
from rk_gemma.toolkit.settings import Settings
from rk_gemma_runtime.bundle import SHAPE, Adapter, Bundle, CpuPart, Manifest, ModelFacts
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.dtypes import NAMES as DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import Checkpoint
    from rk_gemma.export.lora.sources import LoraSource
    from rk_gemma.export.npu import NpuWriter
    from rk_gemma.export.progress import Step

CPU_QUANTS = ("Q8_0", "F16", "none")
# Parameter counts of the public checkpoints, as Keras Hub and transformers' module trees have them.
SIZES = {2506172416: "2b", 8537680896: "7b", 2614341888: "2b", 9241705984: "9b", 27227128320: "27b"}


@dataclass(frozen=True)
class Options:
    """What to write. `npu` is one of WRITERS or none; `dtype` and `cpu` are of DTYPES and CPU_QUANTS; `context` as
    `open_model` takes it. `adapters`: PEFT directories to take along. `template` is one of WISHES. `settings` are the
    toolkit's."""

    npu: str = "sim"
    dtype: str = "w8a8"
    cpu: str = "Q8_0"
    name: str = ""
    licence: str = ""
    context: int = 0
    adapters: tuple[LoraSource, ...] = ()
    template: str = "auto"
    settings: Settings = field(default_factory=Settings)

    def check(self) -> None:
        """Raise UsageError for an unknown word, and if nothing is to be written."""
        words = (("--dtype", self.dtype, DTYPES), ("--cpu", self.cpu, CPU_QUANTS))
        for name, given, known in (*words, ("--chat-template", self.template, WISHES)):
            if given not in known:
                raise UsageError(f"unknown {name} {given!r}; choose {' or '.join(known)}")
        if self.npu == "none" and self.cpu == "none":
            raise UsageError("--npu none and --cpu none leave nothing to export")


def export(
    source: Path,
    target: Path,
    options: Options,
    warn: Callable[[str], None] = lambda line: None,
    on_stop: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Write the bundle and open it; `on_stop` as `staging` takes it. Raises CheckpointError, BundleError, UsageError;
    then nothing is left."""
    options.check()
    writer = npu_writer(options.npu, options.dtype, replace(options.settings, context=options.context))
    refuse_existing(target)
    warnings: list[str] = []  # told when all is accepted: a refusal is one line
    model = open_model(source, options.context, options.template, warnings.append)
    if writer is not None:
        writer.check(model.spec)
    scratch, force = 0, False
    if isinstance(writer, Converter):
        prepared = writer.prepare(model, len(options.adapters))
        warnings += prepared.lines
        scratch, force = prepared.scratch, prepared.force
    if not force:
        check_space(target, model.spec.shape, options.npu, options.dtype, options.cpu, scratch)
    if options.cpu != "none":
        from rk_gemma.export.gguffile import check_gguf

        check_gguf(model.checkpoint)
    adapters = Adapters(options.adapters, model.spec, writer, options.cpu != "none")
    for line in warnings:
        warn(line)
    words = asdict(replace(options, adapters=()))
    part = asdict(writer.part(model.spec.shape.context)) if writer else None
    key = json.dumps([__version__, model.checkpoint.fingerprint(), words, part, adapters.fingerprint()])
    with staging(target, key, on_stop) as stage, reporter() as step:
        adapters.write(stage, step)  # small, and the part most likely to be refused
        own = _own_adapter(stage, writer)
        _write_files(stage, step, model, writer, options)
        manifest = _manifest(stage, model, writer, options)
        stage.commit(replace(manifest, adapters=(*own, *adapters.manifest())))
    return Bundle.open(target)


def _own_adapter(stage: Staging, writer: NpuWriter | None) -> tuple[Adapter, ...]:
    """Have a converter write the adapter that its algorithm makes, if it makes one."""
    own = writer.own_adapter() if isinstance(writer, Converter) else None
    if own is None or not isinstance(writer, Converter):
        return ()
    stage.add(str(own.npu), writer.write_own)
    return (own,)


def _write_files(stage: Staging, step: Step, model: Model, writer: NpuWriter | None, options: Options) -> None:
    if writer is not None:
        work = writer.work(model.spec)
        _add(stage, step, writer.file, work, lambda path, on_bytes: writer.write(path, model, on_bytes))
    if options.cpu != "none":
        from rk_gemma.export.gguffile import write_gguf

        work, quant = 2 * model.spec.shape.parameters, options.cpu
        name = options.name or model.checkpoint.origin.source.rpartition("/")[2]
        _add(stage, step, "model.gguf", work, lambda path, on_bytes: write_gguf(path, model, quant, name, on_bytes))
    if model.tokenizer is not None:
        stage.add("tokenizer.model", lambda path: _put(path, model.text.vocabulary))


def _add(
    stage: Staging, step: Step, name: str, work: int, write: Callable[[Path, Callable[[int], None]], None]
) -> None:
    """Add a large file, unless an earlier try finished it; its progress shows only if it is written."""
    stage.add(name, lambda path: write(path, step(name, work)))


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _manifest(stage: Staging, model: Model, writer: NpuWriter | None, options: Options) -> Manifest:
    spec = model.spec
    return Manifest(
        model=_facts(model.checkpoint, options),
        context=spec.shape.context,
        vocab=spec.shape.vocab,
        bos=spec.bos,
        eos=model.eos,
        template=model.text.template,
        npu=writer.part(spec.shape.context) if writer else None,
        cpu=CpuPart("model.gguf", options.cpu) if options.cpu != "none" else None,
        tokenizer="tokenizer.model" if model.tokenizer else None,
        shape={key: getattr(spec.shape, key) for key in SHAPE},
        files=dict(stage.files),
    )


def _facts(checkpoint: Checkpoint, options: Options) -> ModelFacts:
    count = checkpoint.spec.shape.parameters
    origin = checkpoint.origin
    return ModelFacts(
        family=checkpoint.spec.shape.family,
        size=SIZES.get(count, f"{count / 1e6:.1f}M"),
        variant="it" if "-it" in origin.source else "",
        source=origin.source,
        revision=origin.revision,
        licence=options.licence or ("Gemma Terms of Use" if count in SIZES else ""),
    )
