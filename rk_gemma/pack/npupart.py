"""The NPU part of a bundle from an `.rkllm`: what the file, its card and its names say, settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma.parts.card import CardFacts
from rk_gemma.parts.names import NameFacts
from rk_gemma.parts.settle import Claim, Settled, Settling
from rk_gemma_runtime.board.versions import release_of
from rk_gemma_runtime.bundle import NpuPart
from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.memory.dtypes import GROUPS
from rk_gemma_runtime.memory.shape import Shape

if TYPE_CHECKING:
    from rk_gemma.pack.wishes import Wishes
    from rk_gemma_runtime.rkllmfile.describe import Description

FILE = "model.rkllm"
PLATFORM = "RK3588"
FIRST_TOOLKIT = (1, 1)  # files of 1.0 are another format
LIKELY_DTYPES = (*GROUPS, "fp16")
OPTION, OWN, CARD, NAME, SIZE = "the option", "the file", "its card", "its name", "its size"
NEAR = 0.015  # public w8a8 files are 0.2 to 0.9 % larger than this count


@dataclass(frozen=True)
class NpuInput:
    """An `.rkllm` with all that speaks about it."""

    label: str
    found: Description
    names: NameFacts = field(default_factory=NameFacts)
    card: CardFacts = field(default_factory=CardFacts)


@dataclass(frozen=True)
class NpuFacts:
    """What was settled; `missing` are the options that would say the rest."""

    platform: Settled[str]
    dtype: Settled[str]
    toolkit: Settled[str]
    max_context: Settled[int]
    cores: Settled[int]
    options: str

    @property
    def missing(self) -> list[str]:
        """Name the options for what nobody said."""
        lacks = {"--dtype": self.dtype.value, "--context": self.max_context.value, "--npu-cores": self.cores.value}
        return [option for option, value in lacks.items() if not value]

    def part(self) -> NpuPart:
        """Make the entry of bundle.yaml."""
        return NpuPart(
            FILE, "rkllm", self.dtype.value, self.platform.value, self.toolkit.value, self.max_context.value,
            self.cores.value, self.options,
        )  # fmt: skip


def settle_npu(given: NpuInput, wishes: Wishes, settling: Settling) -> NpuFacts:
    """Decide what the file is. Raises InputError for one that cannot run on an RK3588."""
    found, names = given.found, given.names
    _check_whole(given)
    platform = settling.settle("platform", (Claim(_known(found, "platform"), OWN), Claim(names.platform, NAME)), "")
    toolkit = settling.settle(
        "toolkit",
        (Claim(found.text("toolkit"), OWN), Claim(wishes.toolkit, OPTION), Claim(given.card.toolkit, CARD),
         Claim(names.toolkit, NAME)),
        "",
    )  # fmt: skip
    _check_platform(given, platform, wishes.force)
    _check_toolkit(given, toolkit)
    return NpuFacts(
        platform if platform.value else Settled(PLATFORM, "assumed"),
        _dtype(given, wishes, settling),
        toolkit,
        settling.settle(
            "context", (Claim(found.number("max_context"), OWN), Claim(wishes.context, OPTION),
                        Claim(names.context, NAME)), 0,
        ) if not found.number("max_context") else _limit(found, names, settling),
        settling.settle(
            "NPU cores", (Claim(found.number("npu_cores"), OWN), Claim(wishes.cores, OPTION),
                          Claim(names.cores, NAME)), 0,
        ),
        _options(names),
    )  # fmt: skip


def _limit(found: Description, names: NameFacts, settling: Settling) -> Settled[int]:
    """The file's own limit; --context asks for less, and contradicts nothing."""
    claims = (Claim(found.number("max_context"), OWN), Claim(names.context, NAME))
    return settling.settle("context", claims, 0)


def _dtype(given: NpuInput, wishes: Wishes, settling: Settling) -> Settled[str]:
    claimed = given.names.dtype
    if claimed and claimed not in LIKELY_DTYPES:
        settling.notes.append(f"{given.label}: its name says {claimed}, which an RK3588 does not take; not believed")
        claimed = ""
    sized = "" if claimed or wishes.dtype else dtype_by_size(given.found)
    own = Claim(_known(given.found, "dtype").lower(), OWN)
    return settling.settle("dtype", (own, Claim(wishes.dtype, OPTION), Claim(claimed, NAME), Claim(sized, SIZE)), "")


def dtype_by_size(found: Description) -> str:
    """Name the type that a file of this size must have: the embedding is float16, the other matrices have one or two
    bytes a weight (groups add at least two percent). Empty if it fits neither, or the shape is not known."""
    if not found.shape or not found.number("vocab"):
        return ""
    shape = Shape(found.text("architecture"), "", found.number("vocab"), **found.shape, context=0)
    table = 2 * shape.head.size
    fits = [name for name, width in (("w8a8", 1), ("fp16", 2))
            if abs(found.bytes / (table + width * shape.linear_weights) - 1) < NEAR]  # fmt: skip
    return fits[0] if fits else ""


def _known(found: Description, field: str) -> str:
    text = found.text(field)
    return "" if text.startswith("unknown code") else text


def _check_whole(given: NpuInput) -> None:
    if not given.found.is_rkllm:
        raise InputError(f"{given.label}: not an .rkllm: {given.found.kind.text}")
    if given.found.whole == "no":
        raise InputError(f"{given.label}: not whole: {given.found.end}; download it again")


def _check_platform(given: NpuInput, platform: Settled[str], force: bool) -> None:
    code = given.found.text("platform")
    if code.startswith("unknown code") and not force:
        raise InputError(
            f"{given.label}: its platform has the {code}, which is not {PLATFORM}'s; choose a file for {PLATFORM}, or"
            " take it all the same with --force"
        )
    if platform.value and platform.value != PLATFORM:
        raise InputError(
            f"{given.label}: made for {platform.value} ({platform.origin}); choose a file for {PLATFORM}"
        )


def _check_toolkit(given: NpuInput, toolkit: Settled[str]) -> None:
    if toolkit.value and release_of(toolkit.value)[:2] < FIRST_TOOLKIT:
        raise InputError(
            f"{given.label}: made by rkllm-toolkit {toolkit.value} ({toolkit.origin}), whose files librkllmrt 1.1 and"
            " newer do not read; `update_rkllm` of rkllm-toolkit 1.1.4 or newer rewrites it"
        )


def _options(names: NameFacts) -> str:
    """What the name says of how it was converted. Nothing in the file proves it."""
    words = [f"optimization {names.opt}" if names.opt is not None else ""]
    if names.hybrid is not None:
        words.append(f"hybrid rate {names.hybrid:g}")
    said = ", ".join(filter(None, words))
    return f"{said} (by its name)" if said else ""
