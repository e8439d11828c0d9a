"""NPU weights held against what the manifest says of them, before a library sees them. Reads a few MB of a file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.chips import cores_of
from rk_gemma_runtime.board.versions import release_of, version_key
from rk_gemma_runtime.bundle import MANIFEST
from rk_gemma_runtime.errors import InputError, WeightsError
from rk_gemma_runtime.memory.toolkits import UPDATE, check_toolkit, newest
from rk_gemma_runtime.rkllmfile.describe import describe
from rk_gemma_runtime.rkllmfile.kinds import advice_for
from rk_gemma_runtime.rkllmfile.source import FileSource
from rk_gemma_runtime.rkllmfile.values import HIGH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rk_gemma_runtime.bundle import Bundle, Manifest, NpuPart
    from rk_gemma_runtime.rkllmfile.describe import Description

CONTEXT_STEP = 32
STEP_SINCE = (1, 2, 0)
TRAILER_SINCE = (1, 1, 1)  # the oldest public file whose size fits one
WITNESSED = ("1.1.4", "1.3.1")  # the end of their files has been read
OTHERWISE = "--force tries all the same, --backend cpu does without it"
AGAIN = "copy or download it again"
IF_REFUSED = f"compare its size and sha256 with the original, or {AGAIN}"
CORRECT = f"correct {MANIFEST}, or take the file that it describes"
CUSTOM = "custom"  # how the toolkit names architectures that came late; a class of transformers says more
log = logging.getLogger(__name__)
COMPARED = {"npu_cores": "npu_cores", "max_context": "max_context", "vocab": "vocabulary"}


@dataclass(frozen=True)
class Fault:
    """Why weights are not to be loaded: a cause of the rule book, a sentence that names the file, and what to do."""

    cause: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Weights:
    """What is known of a bundle's NPU weights. `toolkit`: the newest one that made any of their files, or "".
    `doubts` are worth a look, and no reason not to load."""

    toolkit: str = ""
    faults: tuple[Fault, ...] = ()
    doubts: tuple[Fault, ...] = ()

    def check(self) -> None:
        """Raise WeightsError with the first fault. Log the doubts."""
        for fault in self.faults:
            raise WeightsError(fault.text, fault.cause, f"{fault.remedy}; {OTHERWISE}")
        for doubt in self.doubts:
            log.warning("%s; %s", doubt.text, doubt.remedy)


def read_weights(bundle: Bundle, adapters: Iterable[Path]) -> Weights:
    """Read the NPU's file and these LoRA adapters' files. The simulator's weights are not looked at."""
    npu, path = bundle.manifest.npu, bundle.npu_file
    if npu is None or path is None or npu.format != "rkllm":
        return Weights()
    try:
        with FileSource(path) as source:
            found = describe(source)
        loras = [(adapter, _describe(adapter)) for adapter in adapters]
    except InputError:  # one that is not there, or may not be read: the library will say so
        return Weights()
    faults = [*_faults(path, bundle.manifest, npu, found)]
    for adapter, lora in loras:
        faults += _lora_faults(adapter, lora, found)
    made = [npu.toolkit or found.text("toolkit"), *(lora.text("toolkit") for _, lora in loras)]
    return Weights(newest(*made), tuple(faults), () if faults else tuple(_doubts(path, npu, found)))


def _describe(path: Path) -> Description:
    with FileSource(path) as source:
        return describe(source)


def _faults(path: Path, manifest: Manifest, npu: NpuPart, found: Description) -> Iterator[Fault]:
    """What is not an `.rkllm`, or not all of one, says nothing else."""
    unusable = _unusable(path, found, npu)
    if unusable is not None:
        yield unusable
        return
    yield from _contradictions(path, manifest, npu, found)
    yield from _limits(path, npu)
    yield from _too_old(path, npu.toolkit or found.text("toolkit"))


def _too_old(path: Path, toolkit: str) -> Iterator[Fault]:
    for reason in check_toolkit(toolkit):
        yield Fault(reason.cause, f"{path}: {reason.text}", UPDATE)


def _unusable(path: Path, found: Description, npu: NpuPart) -> Fault | None:
    if not found.is_rkllm:
        text = f"{path}: not an .rkllm: {found.kind.text}"
        return Fault("model_magic_mismatch", text, advice_for(found.kind))
    end = found.end if found.whole == "no" else ""
    toolkit = _maker(npu, found)
    if _lacks_trailer(found) and toolkit in WITNESSED:
        end = f"it does not end with the version of its toolkit, as files of rkllm-toolkit {toolkit} do"
    return Fault("model_magic_mismatch", f"{path}: not whole: {end}", AGAIN) if end else None


def _maker(npu: NpuPart, found: Description) -> str:
    return found.text("toolkit") or npu.toolkit


def _lacks_trailer(found: Description) -> bool:
    return found.whole == "unknown" and "no trailer" in found.end


def _doubts(path: Path, npu: NpuPart, found: Description) -> Iterator[Fault]:
    """A missing trailer proves nothing where a release's files have not been seen."""
    toolkit = _maker(npu, found)
    if _lacks_trailer(found) and release_of(toolkit) >= TRAILER_SINCE:
        text = f"{path}: it may not be whole: it does not end with the version of its toolkit ({toolkit})"
        yield Fault("", text, IF_REFUSED)


def _contradictions(path: Path, manifest: Manifest, npu: NpuPart, found: Description) -> Iterator[Fault]:
    made = found.text("toolkit")
    if made and npu.toolkit and version_key(made) != version_key(npu.toolkit):
        yield _differs(path, "toolkit", made, npu.toolkit)
    platform = found.text("platform")
    if platform and npu.platform and platform.upper() != npu.platform.upper() and _tells(platform, npu.platform):
        yield _differs(path, "platform", platform, npu.platform)
    stated = {"npu_cores": npu.npu_cores, "max_context": npu.max_context, "vocab": manifest.vocab}
    for field, name in COMPARED.items():
        value = found.fields[field]
        if value is not None and value.sure == HIGH and value.value != stated[field]:
            yield _differs(path, name, str(value.value), str(stated[field]))
    family = found.text("architecture")
    if family and family.islower() and family not in {CUSTOM, manifest.model.family}:
        yield _differs(path, "architecture", family, manifest.model.family)


def _tells(platform: str, stated: str) -> bool:
    """Whether the file's platform speaks against the manifest's: of a code it is known only which one is RK3588's."""
    return not platform.startswith("unknown code") or stated.upper() == "RK3588"


def _differs(path: Path, what: str, file: str, manifest: str) -> Fault:
    return Fault("manifest_mismatch", f"{path}: the file says {what} {file}, {MANIFEST} says {manifest}", CORRECT)


def _limits(path: Path, npu: NpuPart) -> Iterator[Fault]:
    most = cores_of(npu.platform)
    if npu.npu_cores > most:
        text = f"{path}: npu_cores is {npu.npu_cores} and the NPU of {npu.platform or 'any chip'} has {most}"
        yield Fault("manifest_mismatch", text, CORRECT)
    stepped = not npu.toolkit or release_of(npu.toolkit) >= STEP_SINCE
    if stepped and npu.max_context % CONTEXT_STEP:
        text = f"{path}: max_context is {npu.max_context}, not a multiple of {CONTEXT_STEP}"
        yield Fault("manifest_mismatch", text, CORRECT)


def _lora_faults(path: Path, lora: Description, base: Description) -> Iterator[Fault]:
    """Whether a LoRA's file begins as a model's does is not documented: only what is surely something else counts."""
    if not lora.is_rkllm and not _is_unheard_of(lora):
        yield Fault("model_magic_mismatch", f"{path}: not an .rkllm: {lora.kind.text}", advice_for(lora.kind))
    elif lora.is_rkllm and lora.whole == "no":
        yield Fault("model_magic_mismatch", f"{path}: not whole: {lora.end}", AGAIN)
    yield from _too_old(path, lora.text("toolkit"))
    ours, theirs = lora.text("architecture"), base.text("architecture")
    if ours and theirs and ours != theirs:
        text = f"{path}: this adapter is for {ours} and the model is {theirs}"
        yield Fault("manifest_mismatch", text, "take the adapter that was made for it")


def _is_unheard_of(found: Description) -> bool:
    """Whether it may be an adapter for all that is known; the vendor's own example loads a GGUF."""
    return found.kind.name == "gguf" or (found.kind.name == "other" and found.kind.text.startswith("neither"))
