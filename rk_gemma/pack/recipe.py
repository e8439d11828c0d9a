"""The recipe of a bundle: all of its manifest but the files' hashes, decided before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma.pack.npupart import NAME, OPTION, OWN, NpuInput, settle_npu
from rk_gemma.pack.vocabulary import Tokens, Vocabulary, check_vocabulary
from rk_gemma.parts.identity import BASE, INSTRUCT, Identity, check_same, of_gguf, of_rkllm, size_of
from rk_gemma.parts.settle import Claim, Settling
from rk_gemma_runtime.bundle import SHAPE, Adapter, CpuPart, Manifest, ModelFacts
from rk_gemma_runtime.chat.tokenizer import END_OF_TURN
from rk_gemma_runtime.errors import InputError, UsageError
from rk_gemma_runtime.memory.models import by_name
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT, Shape, norms_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rk_gemma.pack.npupart import NpuFacts
    from rk_gemma.pack.wishes import Wishes
    from rk_gemma.parts.gguf import GgufFacts
    from rk_gemma.parts.names import NameFacts

GEMMA_BOS, GEMMA_EOS = 2, 1
TERMS = "Gemma Terms of Use"


@dataclass(frozen=True)
class CpuInput:
    """A GGUF with all that speaks about it; `file` is its name in the bundle, of a split one the first part's."""

    label: str
    facts: GgufFacts
    names: NameFacts
    quant: str
    file: str = "model.gguf"


@dataclass(frozen=True)
class Ingredients:
    """What a bundle is made of. `tokens` are the parts' own; `vocabulary` None: token ids only."""

    npu: NpuInput | None
    cpu: CpuInput | None
    vocabulary: Vocabulary | None
    tokens: Sequence[Tokens] = ()
    adapters: tuple[Adapter, ...] = ()
    source: str = ""
    revision: str = ""


@dataclass
class Recipe:
    """`manifest` lacks only `files`; `notes` for the person; `npu` what was settled about the `.rkllm`."""

    manifest: Manifest
    npu: NpuFacts | None
    identity: Identity
    notes: list[str] = field(default_factory=list)


class MissingError(UsageError):
    """Something that no file says; `npu` is what was settled all the same."""

    def __init__(self, message: str, npu: NpuFacts | None) -> None:
        super().__init__(message)
        self.npu = npu

    def __reduce__(self) -> tuple[object, ...]:
        return MissingError, (self.args[0], None)


def make_recipe(given: Ingredients, wishes: Wishes) -> Recipe:
    """Decide. Raises InputError for parts that cannot be used or joined, UsageError with the options that are
    missing."""
    wishes.check()
    settling = Settling()
    npu = settle_npu(given.npu, wishes, settling) if given.npu else None
    identity = _identity(given, wishes, settling)
    _ask_for_missing(given, npu, identity)
    notes = settling.notes
    if given.npu:
        notes += [f"{given.npu.label}: {note}" for note in given.npu.found.notes]
    if given.vocabulary is not None:
        notes += check_vocabulary(given.vocabulary, given.tokens)
    template = _template(given, wishes, identity, notes)
    most = min(npu.max_context.value if npu else 1 << 30, (given.cpu.facts.context if given.cpu else 0) or 1 << 30)
    if wishes.context > most:
        raise UsageError(f"--context {wishes.context} is over the {most} that the weights were made for")
    bos, eos = _ends(given, template)
    manifest = Manifest(
        model=_facts(given, wishes, identity),
        context=wishes.context or min(most, DEFAULT_CONTEXT),
        vocab=identity.vocab,
        bos=bos,
        eos=eos,
        template=template,
        npu=npu.part() if npu else None,
        cpu=CpuPart(given.cpu.file, given.cpu.quant) if given.cpu else None,
        tokenizer="tokenizer.model" if given.vocabulary else None,
        adapters=given.adapters,
        shape=identity.shape,
    )
    return Recipe(manifest, npu, identity, notes)


def _identity(given: Ingredients, wishes: Wishes, settling: Settling) -> Identity:
    found = []
    if given.npu:
        found.append(of_rkllm(given.npu.found, given.npu.names, given.npu.label))
    if given.cpu:
        found.append(of_gguf(given.cpu.facts, given.cpu.names, given.cpu.label))
    if not found:
        raise UsageError("neither an .rkllm nor a GGUF among the files; a bundle needs one of them")
    for one in found:
        one.check_family()
    if len(found) == 2 and not wishes.force:
        check_same(*found)
    for part, names in ((given.npu, given.npu and given.npu.names), (given.cpu, given.cpu and given.cpu.names)):
        if part and names:
            own = next(one for one in found if one.label == part.label)
            settling.settle("family", (Claim(own.family, OWN), Claim(names.family, NAME)), "")
            settling.settle("size", (Claim(size_of(own.family, own.shape), OWN), Claim(names.size, NAME)), "")
    return _filled(found, wishes, settling)


def _filled(found: list[Identity], wishes: Wishes, settling: Settling) -> Identity:
    """Join what the parts say. What a person says comes behind what the files themselves say."""
    first, last = found[0], found[-1]
    family = settling.settle(
        "family", (Claim(first.family or last.family, OWN), Claim(wishes.family, OPTION)), ""
    ).value
    sizes = [size_of(family, one.shape) for one in found]
    own = next((size for size in sizes if size), "")
    size = settling.settle("size", (Claim(own, OWN), Claim(wishes.size, OPTION)), "").value or first.size or last.size
    known = by_name(f"{'gemma-2' if family == 'gemma2' else family}-{size}") if family and size else None
    shape = first.shape or last.shape or ({key: getattr(known, key) for key in SHAPE} if known else {})
    vocab = first.vocab or last.vocab or (known.vocab if known else 0)
    variant = wishes.variant or next((one.variant for one in found if one.variant), "")
    if not size and shape:
        size = _million(family, vocab, shape)
    return Identity(first.label, family, size, variant, vocab, shape)


def _million(family: str, vocab: int, shape: dict[str, int]) -> str:
    """Name the size of an unpublished model by its number of weights, as the exporter does."""
    count = Shape(family, "", vocab, **shape, context=0, norms=norms_of(family)).parameters
    return f"{count / 1e6:.1f}M"


def _ask_for_missing(given: Ingredients, npu: NpuFacts | None, identity: Identity) -> None:
    missing = npu.missing if npu else []
    if not identity.family:
        missing = ["--family", *missing]
    if not identity.size or not identity.vocab:
        missing = [*missing, "--size"]
    if not identity.variant:
        missing = [*missing, "--variant"]
    if missing:
        raise MissingError(
            f"{identity.label}: neither the files nor their names say it; give {', '.join(missing)}", npu
        )


def _template(given: Ingredients, wishes: Wishes, identity: Identity, notes: list[str]) -> str:
    if wishes.template != "auto":
        return wishes.template
    if given.vocabulary is None:
        return "none"
    if given.cpu and given.cpu.facts.template == "other":
        raise InputError(
            f"{given.cpu.label}: its chat template is not Gemma's; give --chat-template none (texts are continued),"
            " or --chat-template gemma if it was trained on Gemma's turns too"
        )
    if identity.variant == BASE:
        notes.append("a base model: it continues a text, and has no chat template")
        return "none"
    return "gemma"


def _ends(given: Ingredients, template: str) -> tuple[int, tuple[int, ...]]:
    """Where a prompt begins and an answer ends: as the files say, and as the tokenizer does."""
    found = given.npu.found if given.npu else None
    facts = given.cpu.facts if given.cpu else None
    stated = [*(found.eos if found else ()), *(facts.eos if facts else ())]
    bos = next((b for b in (found.bos if found else None, facts.bos if facts else None) if b is not None), GEMMA_BOS)
    if given.vocabulary is None:
        return bos, tuple(dict.fromkeys(stated or [GEMMA_EOS]))
    processor = given.vocabulary.processor()
    own = [int(processor.eos_id())]
    if template == "gemma":
        turn = int(processor.piece_to_id(END_OF_TURN))
        if turn == processor.unk_id():
            raise InputError(f"{given.vocabulary.origin}: no {END_OF_TURN} piece, so it is not Gemma's tokenizer")
        own.append(turn)
    return int(processor.bos_id()), tuple(dict.fromkeys([*stated, *(number for number in own if number >= 0)]))


def _facts(given: Ingredients, wishes: Wishes, identity: Identity) -> ModelFacts:
    card = given.npu.card if given.npu else None
    licence = wishes.licence or (card.licence if card else "") or (TERMS if identity.family else "")
    return ModelFacts(
        identity.family, identity.size, INSTRUCT if identity.variant == INSTRUCT else "", given.source,
        given.revision, TERMS if licence == "gemma" else licence,
    )  # fmt: skip
