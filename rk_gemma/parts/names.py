"""What the names of a repository and a file claim, read as a person would.

People write the model first, then how it was converted; separators are `-`, `_` and `.`. A name is a claim: what the
file itself says goes before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

ALNUM = "a-z0-9"
_PLATFORM = re.compile(rf"(?<![{ALNUM}])(rk(?:3588s?|3576|3562|3566|3568|1126b?))(?![{ALNUM}])")
_DTYPE = re.compile(rf"(?<![{ALNUM}])(w(?:8a8|4a16|4a8))(?:[_-]?g(32|64|128|256|512))?(?![{ALNUM}])")
_OPT = re.compile(rf"(?<![{ALNUM}])(?:opt[-_]?|o)([01])(?![{ALNUM}.])")
_HYBRID = re.compile(rf"(?<![{ALNUM}])(?:hybrid(?:[-_]?(?:ratio|rate))?[-_]?|h)(\d\.\d+|\d)(?![{ALNUM}])")
_CORES = re.compile(rf"(?<![{ALNUM}])npu[-_]?([123])(?![{ALNUM}])")
_CONTEXT = re.compile(rf"(?<![{ALNUM}])(?:ctx[-_]?(\d{{1,5}})(k?)|(\d{{1,3}})(k)|(\d{{4,5}}))(?![{ALNUM}]|\.\d)")
_TOOLKIT_WORD = re.compile(r"(?:rkllm|toolkit|runtime)[-_ ]?v?(1\.\d\.\d(?:b\d+)?)(?![0-9])")
_TOOLKIT_ALONE = re.compile(rf"(?<![{ALNUM}.])v?(1\.\d\.\d(?:b\d+)?)(?!\d|\.\d)")
_GEMMA = re.compile(
    rf"(?<![{ALNUM}])([{ALNUM}]*?)gemma(?:[-_ ]?(?P<number>[1-9](?:\.\d)?n?)(?=$|[-_.]|(?![bm])[a-z]))?(?![a-z])"
)
_SIZE = re.compile(rf"(?<![{ALNUM}.])(e?\d{{1,3}}(?:[._]\d+)?)(b|m)(?![{ALNUM}])")
_INSTRUCT = re.compile(r"(?<![a-z0-9])(?:it|instruct|chat)(?![a-z0-9])")
_BASE = re.compile(r"(?<![a-z0-9])(?:base|pt)(?![a-z0-9])")
_ENDING = re.compile(r"\.(?:rkllm|gguf)$")
# Gemmas that are built otherwise, or made for something else than answering.
OTHER_KINDS = {"pali": "PaliGemma", "recurrent": "RecurrentGemma", "shield": "ShieldGemma", "t5": "T5Gemma",
               "embedding": "EmbeddingGemma", "med": "MedGemma", "vault": "VaultGemma", "function": "FunctionGemma",
               "translate": "TranslateGemma", "dolphin": "DolphinGemma"}  # fmt: skip
FAMILIES = {"": "gemma", "1": "gemma", "1.1": "gemma", "2": "gemma2", "3": "gemma3", "3n": "gemma3n", "4": "gemma4"}


@dataclass(frozen=True)
class NameFacts:
    """Empty, 0 or None where the name does not say. `family`: gemma, gemma2, gemma3, ... or empty for another model;
    `size` such as 2b, 270m, e2b; `variant`: it, base or empty; `platform` RK3588, ...; `hybrid` the claimed rate."""

    model: str = ""
    family: str = ""
    kind: str = ""
    size: str = ""
    variant: str = ""
    platform: str = ""
    dtype: str = ""
    toolkit: str = ""
    context: int = 0
    opt: int | None = None
    hybrid: float | None = None
    cores: int = 0


def read_name(name: str) -> NameFacts:
    """Read the name of a file or a repository; an owner or folders before it are left out."""
    text = _ENDING.sub("", name.rsplit("/", 1)[-1].lower())
    platform, dtype = _PLATFORM.search(text), _DTYPE.search(text)
    toolkit = _toolkit(text)
    starts = [m.start() for m in (platform, dtype, toolkit, _OPT.search(text), re.search(r"[-_.]rkllm", text)) if m]
    cut = min(starts, default=len(text))
    model = text[:cut].strip("-_. ")
    family, kind = _family(text)
    context = _context(text, starts)
    opt, hybrid, cores = _OPT.search(text), _HYBRID.search(text), _CORES.search(text)
    return NameFacts(
        model, family, kind, _size(model or text), _variant(text), _platform(platform), _dtype(dtype),
        toolkit[1] if toolkit else "", context, int(opt[1]) if opt else None, float(hybrid[1]) if hybrid else None,
        int(cores[1]) if cores else 0,
    )  # fmt: skip


def read_names(repository: str, file: str, revision: str = "") -> NameFacts:
    """Read all names of a file on the hub: what its own says goes before the branch's, that before the
    repository's."""
    own, branch, home = read_name(file), read_name(revision), read_name(repository)
    if not own.family and not own.size:  # "model.rkllm", "language_model_w8a8.rkllm"
        own = replace(own, model=home.model, family=home.family, kind=home.kind, variant=own.variant or home.variant)
    merged = {field: getattr(own, field) for field in NameFacts.__dataclass_fields__}
    for other in (branch, home):
        for field, value in merged.items():
            if _says_nothing(field, value) and field not in {"variant", "kind", "family", "model"}:
                merged[field] = getattr(other, field)
    return NameFacts(**merged)


def _says_nothing(field: str, value: object) -> bool:
    return value is None or value == "" or (value == 0 and field in {"context", "cores"})


def _platform(found: re.Match[str] | None) -> str:
    return found[1].upper().removesuffix("S") if found else ""


def _dtype(found: re.Match[str] | None) -> str:
    return (f"{found[1]}_g{found[2]}" if found[2] else found[1]) if found else ""


def _toolkit(text: str) -> re.Match[str] | None:
    """A version behind "rkllm", else the last number of three parts: models have two."""
    named = list(_TOOLKIT_WORD.finditer(text)) or list(_TOOLKIT_ALONE.finditer(text))
    return named[-1] if named else None


def _family(text: str) -> tuple[str, str]:
    found = _GEMMA.search(text)
    if found is None:
        return "", ""
    kind = OTHER_KINDS.get(found[1], "")
    return ("" if kind else FAMILIES.get(found["number"] or "", f"gemma{found['number']}")), kind


def _size(text: str) -> str:
    sizes = [(number.replace("_", "."), unit) for number, unit in _SIZE.findall(text)]
    best = next((size for size in sizes if size[1] == "b"), sizes[0] if sizes else None)
    return "".join(best) if best else ""


def _variant(text: str) -> str:
    if _INSTRUCT.search(text):
        return "it"
    return "base" if _BASE.search(text) else ""


def _context(text: str, starts: list[int]) -> int:
    """A number behind how it was converted: in front of that it is the model's own."""
    if not starts:
        found = re.search(r"ctx[-_]?(\d{1,5})(k?)", text)
        return int(found[1]) * (1024 if found[2] else 1) if found else 0
    for found in _CONTEXT.finditer(text, min(starts)):
        number = int(found[1] or found[3] or found[5])
        tokens = number * (1024 if found[2] or found[4] else 1)
        if 512 <= tokens <= 1 << 17:
            return tokens
    return 0
