"""What the name of a GGUF file says: its type of weights, whether it is a part of a split, or not a model at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

QUANTS = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_XS",
    "IQ4_NL", "Q2_K_XL", "Q2_K_L", "Q2_K_S", "Q2_K", "Q3_K_XL", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q3_K", "Q4_K_XL",
    "Q4_K_L", "Q4_K_M", "Q4_K_S", "Q4_K", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "Q4_0", "Q4_1", "Q5_K_XL", "Q5_K_L",
    "Q5_K_M", "Q5_K_S", "Q5_K", "Q5_0", "Q5_1", "Q6_K_XL", "Q6_K_L", "Q6_K", "Q8_K_XL", "Q8_0_L", "Q8_0", "TQ1_0",
    "TQ2_0", "MXFP4", "BF16", "FP16", "F16", "FP32", "F32",
)  # fmt: skip
_SAME = {"FP16": "F16", "FP32": "F32"}
_LONGEST_FIRST = "|".join(sorted(map(re.escape, QUANTS), key=len, reverse=True))
_QUANT = re.compile(rf"(?<![a-z0-9])({_LONGEST_FIRST})(?![a-z0-9]|_(?:[slm]|\d)(?![a-z]))", re.I)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.I)
_RAW = re.compile(
    r"\.gguf\.part\d+of\d+$|-chunk-\d+-of-\d+\.gguf$|\.gguf\.[a-z]$|\.gguf-split-[a-z]$|\.gguf_file$", re.I
)
_OTHER = re.compile(r"mmproj|imatrix|(?:^|/)mtp-|-mtp[-.]|\.lora\.gguf$|lora[-_]adapter", re.I)


@dataclass(frozen=True)
class GgufName:
    """`quant` is empty where the name does not say; `shard` counts from 1 of `shards`, 0 of 0 for a whole file;
    `base` is the name that all shards share."""

    path: str
    quant: str
    shard: int
    shards: int
    base: str


def is_raw_part(path: str) -> bool:
    """Whether this is a piece of a file that was cut into bytes: the pieces must be joined first."""
    return _RAW.search(path) is not None


def is_model_name(path: str) -> bool:
    """Whether the name is that of a GGUF model, and not of a projector, an importance matrix or an adapter."""
    return path.lower().endswith(".gguf") and not _OTHER.search(path) and not is_raw_part(path)


def read_gguf_name(path: str) -> GgufName:
    """Read a name, with the folders before it."""
    shard = _SHARD.search(path)
    base = path[: shard.start()] if shard else path.removesuffix(".gguf")
    found = _QUANT.findall(base.rpartition("/")[2]) or _QUANT.findall(base)
    quant = found[-1].upper() if found else ""
    numbers = (int(shard[1]), int(shard[2])) if shard else (0, 0)
    return GgufName(path, _SAME.get(quant, quant), *numbers, base)


def quant_of(stated: str, named: str) -> str:
    """Choose between what the file states and what its name says: the name may be finer (Q4_K_L for Q4_K_M), and is
    not believed against the file."""
    if not stated or not named:
        return stated or named
    return named if named[:4] == stated[:4] else stated
