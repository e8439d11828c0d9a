"""Which model a part holds, and whether two parts hold the same one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.shape import FAMILIES

if TYPE_CHECKING:
    from rk_gemma.parts.gguf import GgufFacts
    from rk_gemma.parts.names import NameFacts
    from rk_gemma_runtime.rkllmfile.describe import Description

TITLES = {"gemma": "Gemma 1", "gemma2": "Gemma 2", "gemma3": "Gemma 3", "gemma3n": "Gemma 3n", "gemma4": "Gemma 4"}
BASE, INSTRUCT = "base", "it"


@dataclass(frozen=True)
class Identity:
    """A model as far as it is known: empty or 0 where not. `family` as llama.cpp calls it; `shape` as in bundle.yaml;
    `variant` it or base. `label` names the part in messages."""

    label: str
    family: str = ""
    size: str = ""
    variant: str = ""
    vocab: int = 0
    shape: dict[str, int] = field(default_factory=dict)

    def check_family(self) -> None:
        """Raise InputError for a model that this release cannot run."""
        if self.family and self.family not in FAMILIES:
            name = TITLES.get(self.family, self.family)
            raise InputError(f"{self.label}: {name}; this release runs Gemma 1, 1.1 and 2")


def of_rkllm(found: Description, names: NameFacts, label: str) -> Identity:
    """Identify an `.rkllm`: the file goes before its name."""
    if names.kind and not found.text("architecture"):
        raise InputError(f"{label}: {names.kind}; this release runs Gemma 1, 1.1 and 2")
    architecture = found.text("architecture")
    family = architecture or names.family
    return _identity(label, family, found.shape, found.number("vocab"), names, named=not architecture)


def of_gguf(facts: GgufFacts, names: NameFacts, label: str) -> Identity:
    """Identify a GGUF. Its chat template tells an instruct model; a base model has none."""
    variant = names.variant or _variant_of_title(facts)
    own = _identity(label, facts.architecture, facts.shape, facts.vocab, names, named=False)
    return Identity(label, own.family, own.size, variant or own.variant, own.vocab, own.shape)


def _variant_of_title(facts: GgufFacts) -> str:
    words = (
        f"-{facts.title} {facts.keys.string('general.finetune') or ''}-".lower().replace(" ", "-").replace("_", "-")
    )
    if "-it-" in words or facts.template:
        return INSTRUCT
    return ""


def _identity(
    label: str, family: str, shape: dict[str, int], vocab: int, names: NameFacts, *, named: bool
) -> Identity:
    size = size_of(family, shape) or (names.size if names.family in {"", family} or named else "")
    return Identity(label, family, size, variant_of_name(names), vocab, shape)


def variant_of_name(names: NameFacts) -> str:
    """A Gemma that is called neither -it nor otherwise is a base model: that is how Google names them."""
    return names.variant or (BASE if names.family and names.size else "")


def size_of(family: str, shape: dict[str, int]) -> str:
    """Find the public size of a Gemma by its shape; empty for another."""
    for name in SIZES:
        known = find_shape(name)
        if shape and (known.family, known.layers, known.hidden) == (family, shape["layers"], shape["hidden"]):
            return name.rpartition("-")[2]
    return ""


def check_same(one: Identity, other: Identity) -> None:
    """Raise InputError if these cannot be one model; it names each difference."""
    pairs = {
        "family": (one.family, other.family),
        "size": (one.size, other.size),
        "vocabulary": (one.vocab, other.vocab),
        "variant": (one.variant, other.variant),
        "layers": (one.shape.get("layers", 0), other.shape.get("layers", 0)),
        "hidden size": (one.shape.get("hidden", 0), other.shape.get("hidden", 0)),
    }
    odd = [f"{what} {a} and {b}" for what, (a, b) in pairs.items() if a and b and a != b]
    if odd:
        raise InputError(f"{one.label} and {other.label} are two models: {', '.join(odd)}; --force joins them")
