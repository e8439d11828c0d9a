"""The files at hand for a bundle: which is what, by its content."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma.pack.npupart import NpuInput
from rk_gemma.pack.recipe import CpuInput
from rk_gemma.pack.vocabulary import Tokens, Vocabulary, from_gguf, from_rkllm, tokens_of
from rk_gemma.parts.gguf import GgufFacts, read_gguf
from rk_gemma.parts.ggufnames import quant_of, read_gguf_name
from rk_gemma.parts.names import read_name
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.rkllmfile.describe import Description, describe
from rk_gemma_runtime.rkllmfile.source import FileSource

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

TOKENIZER_LIMIT = 64 << 20
SENTENCEPIECE = b"\n"  # the first field of its protocol buffer: a piece
_LORA = re.compile(r"[-_.]lora(?:[-_.]|$)", re.I)


@dataclass
class AtHand:
    """The files by what they are; sources stay open in `stack` until it is closed."""

    stack: ExitStack
    npu: tuple[Path, FileSource, Description] | None = None
    loras: dict[Path, Description] = field(default_factory=dict)
    cpu: dict[Path, tuple[FileSource, GgufFacts]] = field(default_factory=dict)
    tokenizer: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        own = [self.npu[0]] if self.npu else []
        return [*own, *self.cpu, *self.loras, *([self.tokenizer] if self.tokenizer else [])]


def sort_files(paths: list[Path], stack: ExitStack) -> AtHand:
    """Find out which file is what. Raises InputError for a file that is nothing a bundle holds, UsageError for two of
    a kind."""
    found = AtHand(stack)
    for path in paths:
        source = stack.enter_context(FileSource(path))
        description = describe(source)
        if description.kind.name == "gguf":
            found.cpu[path] = (source, read_gguf(source))
        elif description.is_rkllm:
            _add_rkllm(found, path, source, description)
        elif source.read(0, 1) == SENTENCEPIECE and source.size <= TOKENIZER_LIMIT:
            if found.tokenizer:
                raise UsageError(f"{found.tokenizer} and {path}: two tokenizers; give one")
            found.tokenizer = path
        else:
            raise InputError(f"{path}: {description.kind.text}; a bundle is made of .rkllm, GGUF and tokenizer.model")
    _check_shards(found)
    return found


def _add_rkllm(found: AtHand, path: Path, source: FileSource, description: Description) -> None:
    if _LORA.search(path.name.removesuffix(".rkllm")):
        found.loras[path] = description
    elif found.npu is not None:
        raise UsageError(f"{found.npu[0]} and {path}: two .rkllm models; give one (a LoRA has `lora` in its name)")
    else:
        found.npu = (path, source, description)


def _check_shards(found: AtHand) -> None:
    """One GGUF, or all parts of one."""
    names = {path: read_gguf_name(path.name) for path in found.cpu}
    odd = [path for path, (_, facts) in found.cpu.items() if facts.kind != "model"]
    if odd:
        raise InputError(f"{odd[0]}: a GGUF of type {found.cpu[odd[0]][1].kind!r}, not a model")
    if len({name.base for name in names.values()}) > 1 and all(name.shards for name in names.values()):
        raise InputError(f"{', '.join(map(str, found.cpu))}: parts of several models; give those of one")
    wanted = max((facts.shards for _, facts in found.cpu.values()), default=0)
    if wanted > 1:
        have = sorted(name.shard for name in names.values())
        if have != list(range(1, wanted + 1)):
            raise InputError(f"{next(iter(found.cpu))}: a part of {wanted}; give all of them, as they were named")
    elif len(found.cpu) > 1:
        first, second = list(found.cpu)[:2]
        raise UsageError(f"{first} and {second}: two GGUF models; give one")


def check_loras(found: AtHand) -> None:
    """Raise InputError for an adapter that is not whole, or that was made for another architecture."""
    base = found.npu[2].text("architecture") if found.npu else ""
    for path, lora in found.loras.items():
        if lora.whole == "no":
            raise InputError(f"{path}: not whole: {lora.end}; copy or download it again")
        own = lora.text("architecture")
        if own and base and own != base:
            raise InputError(f"{path}: a LoRA for {own}, and the model is {base}; leave it out")


def first_gguf(found: AtHand) -> Path | None:
    """Return the GGUF, or the first part of a split one: it has the keys."""
    return min(found.cpu, key=lambda path: read_gguf_name(path.name).shard, default=None)


def npu_input(found: AtHand) -> NpuInput | None:
    """Describe the `.rkllm` for the recipe."""
    if found.npu is None:
        return None
    path, _, description = found.npu
    return NpuInput(str(path), description, read_name(path.name))


def cpu_input(found: AtHand) -> CpuInput | None:
    """Describe the GGUF for the recipe. Raises InputError if its type of weights is not known."""
    path = first_gguf(found)
    if path is None:
        return None
    facts, name = found.cpu[path][1], read_gguf_name(path.name)
    quant = quant_of(facts.quant, name.quant)
    if not quant:
        raise InputError(f"{path}: neither the file nor its name tells its type of weights; call it NAME-Q4_0.gguf")
    file = path.name if len(found.cpu) > 1 else "model.gguf"
    return CpuInput(str(path), facts, read_name(path.name), quant, file)


def tokens_at_hand(found: AtHand) -> list[Tokens]:
    """Read the parts' own tokens."""
    own = []
    if found.npu:
        path, source, description = found.npu
        own.append(tokens_of(source, description.keys, description.number("vocab"), str(path)))
    first = first_gguf(found)
    if first:
        gguf_source, facts = found.cpu[first]
        own.append(tokens_of(gguf_source, facts.keys, facts.vocab, str(first)))
    return own


def vocabulary_at_hand(found: AtHand, own: list[Tokens]) -> Vocabulary | None:
    """Choose the tokenizer: the file that was given, else the GGUF's, else the `.rkllm`'s if it is Gemma's; None if
    there is none. Raises InputError."""
    if found.tokenizer:
        return Vocabulary(found.tokenizer.read_bytes(), str(found.tokenizer))
    first = first_gguf(found)
    made = None
    if first:
        source, facts = found.cpu[first]
        made = from_gguf(source, facts.keys, own[-1])
    return made or (from_rkllm(own[0]) if found.npu else None)
