"""The export: checkpoint in, bundle out."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rk_gemma import __version__
from rk_gemma.checkpoint import Checkpoint
from rk_gemma.export.lora.parts import Adapters
from rk_gemma.export.progress import reporter
from rk_gemma.export.simfile import TOOLKIT, write_sim
from rk_gemma.export.staging import Staging, refuse_existing, staging
from rk_gemma_runtime.bundle import SHAPE, Bundle, CpuPart, Manifest, ModelFacts, NpuPart
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import CheckpointError, UsageError
from rk_gemma_runtime.memory.dtypes import NAMES as DTYPES
from rk_gemma_runtime.memory.dtypes import check, dtype_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.lora.sources import LoraSource
    from rk_gemma.export.progress import Step

NPU_FORMATS = ("sim", "none")
CPU_QUANTS = ("Q8_0", "F16", "none")
DEFAULT_CONTEXT = 4096  # rkllm-toolkit's own default
# Parameter counts of the public checkpoints, as Keras Hub and transformers' module trees have them.
SIZES = {2506172416: "2b", 8537680896: "7b", 2614341888: "2b", 9241705984: "9b", 27227128320: "27b"}


@dataclass(frozen=True)
class Options:
    """What to write. `npu` sim|none, `dtype` and `cpu` as in DTYPES and CPU_QUANTS. `context` 0: the model's, at most
    DEFAULT_CONTEXT. `adapters`: PEFT directories to take along."""

    npu: str = "sim"
    dtype: str = "w8a8"
    cpu: str = "Q8_0"
    name: str = ""
    licence: str = ""
    context: int = 0
    adapters: tuple[LoraSource, ...] = ()

    def check(self) -> None:
        """Raise UsageError for a word that is none of the known ones."""
        for given, known in ((self.npu, NPU_FORMATS), (self.dtype, DTYPES), (self.cpu, CPU_QUANTS)):
            if given not in known:
                raise UsageError(f"{given!r} is none of {', '.join(known)}")
        if self.npu == "none" and self.cpu == "none":
            raise UsageError("--npu none and --cpu none leave nothing to export")


def export(source: Path, target: Path, options: Options, warn: Callable[[str], None] = lambda line: None) -> Bundle:
    """Write the bundle and open it. Raises CheckpointError, BundleError, UsageError; then nothing is left."""
    options.check()
    refuse_existing(target)
    checkpoint = _with_context(Checkpoint.open(source), options.context)
    tokenizer = _tokenizer(checkpoint, warn)
    if options.npu == "sim":
        check(checkpoint.spec.shape, dtype_of(options.dtype))
    adapters = Adapters(options.adapters, checkpoint.spec, options.npu != "none", options.cpu != "none")
    words = asdict(replace(options, adapters=()))
    key = json.dumps([__version__, checkpoint.fingerprint(), words, adapters.fingerprint()])
    with staging(target, key) as stage, reporter() as step:
        adapters.write(stage, step)  # small, and the part most likely to be refused
        _write_files(stage, step, checkpoint, tokenizer, options)
        manifest = _manifest(stage, checkpoint, tokenizer, options)
        stage.commit(replace(manifest, adapters=adapters.manifest()))
    return Bundle.open(target)


def _with_context(checkpoint: Checkpoint, context: int) -> Checkpoint:
    """Room for prompt and answer is memory on the board: a bundle states how much it was made for."""
    most = checkpoint.spec.shape.context
    if context > most:
        raise UsageError(f"--context {context} is over the model's {most}")
    shape = replace(checkpoint.spec.shape, context=context or min(most, DEFAULT_CONTEXT))
    return Checkpoint(checkpoint.directory, replace(checkpoint.spec, shape=shape), checkpoint.tensors)


def _tokenizer(checkpoint: Checkpoint, warn: Callable[[str], None]) -> Tokenizer | None:
    if checkpoint.tokenizer is None:
        warn(f"{checkpoint.directory}: no tokenizer.model; the bundle takes and gives token ids only")
        return None
    tokenizer = Tokenizer.open(checkpoint.tokenizer)
    if tokenizer.size > checkpoint.spec.shape.vocab:
        raise CheckpointError(
            f"{checkpoint.tokenizer}: {tokenizer.size} pieces, the model has {checkpoint.spec.shape.vocab} rows"
        )
    return tokenizer


def _write_files(
    stage: Staging, step: Step, checkpoint: Checkpoint, tokenizer: Tokenizer | None, options: Options
) -> None:
    spec, eos = checkpoint.spec, _eos(checkpoint.spec, tokenizer)
    once = 2 * spec.shape.parameters
    if options.npu == "sim":
        done = step("model.sim", once + 2 * spec.shape.vocab * spec.shape.hidden)
        stage.add("model.sim", lambda path: write_sim(path, checkpoint, tokenizer, options.dtype, eos, done))
    if options.cpu != "none":
        from rk_gemma.export.gguffile import write_gguf

        told = step("model.gguf", once)
        name = options.name or stage.target.name
        stage.add("model.gguf", lambda path: write_gguf(path, checkpoint, options.cpu, eos, name, told))
    given = checkpoint.tokenizer
    if given is not None:
        stage.add("tokenizer.model", lambda path: _copy(given, path))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _eos(spec: ModelSpec, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    turn = (tokenizer.end_of_turn,) if tokenizer else ()
    return tuple(dict.fromkeys((*spec.eos, *turn)))


def _manifest(stage: Staging, checkpoint: Checkpoint, tokenizer: Tokenizer | None, options: Options) -> Manifest:
    spec = checkpoint.spec
    npu = NpuPart("model.sim", "sim", options.dtype, "RK3588", TOOLKIT, spec.shape.context, 3)
    return Manifest(
        model=_facts(checkpoint, options),
        context=spec.shape.context,
        vocab=spec.shape.vocab,
        bos=spec.bos,
        eos=_eos(spec, tokenizer),
        template="gemma" if tokenizer else "none",
        npu=npu if options.npu == "sim" else None,
        cpu=CpuPart("model.gguf", options.cpu) if options.cpu != "none" else None,
        tokenizer="tokenizer.model" if tokenizer else None,
        shape={key: getattr(spec.shape, key) for key in SHAPE},
        files=dict(stage.files),
    )


def _facts(checkpoint: Checkpoint, options: Options) -> ModelFacts:
    count = checkpoint.spec.shape.parameters
    source = checkpoint.directory.resolve().name
    return ModelFacts(
        family=checkpoint.spec.shape.family,
        size=SIZES.get(count, f"{count / 1e6:.1f}M"),
        variant="it" if "-it" in source else "",
        source=source,
        revision=_revision(checkpoint.directory),
        licence=options.licence or ("Gemma Terms of Use" if count in SIZES else ""),
    )


def _revision(directory: Path) -> str:
    """The commit that huggingface_hub noted when it downloaded the config, if it did."""
    note = directory / ".cache/huggingface/download/config.json.metadata"
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    return lines[0].strip() if lines else ""
