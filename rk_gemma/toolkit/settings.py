"""What a conversion is asked for, held against the limits of the RK3588 and of the toolkit's release."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma_runtime.board.versions import release_of
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.dtypes import check as check_group
from rk_gemma_runtime.memory.dtypes import dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.memory.shape import Shape

PLATFORM = "RK3588"
CORES = (1, 2, 3)
LEVELS = (0, 1)
DEVICES = ("cpu", "cuda")
LOADINGS = ("float32", "float16", "bfloat16")
ALGORITHM = re.compile(r"normal(?:_r(\d{1,4}))?")
MOST_RANK = 64
STEP = 32  # tokens of max_context
LONG, SHORT = 16384, 4096  # from 1.2.0 on, and before
LONG_SINCE, RANK_SINCE, SWITCHES_SINCE = (1, 2, 0), (1, 2, 1), (1, 3, 0)
# The toolkit refuses to write k and v below this many outputs.
LEAST_KV = 96


@dataclass(frozen=True)
class Settings:
    """Options of a conversion. `environment` names the installed toolkit; `loading` is the type that weights are
    loaded in, empty for the toolkit's own; `calibration` is a file, builtin, or empty for none; `context` is the one
    that was asked for, 0 for none. `force` goes on where time, memory or disk do not fit."""

    environment: str = ""
    cores: int = 3
    level: int = 1
    hybrid: float = 0.0
    algorithm: str = "normal"
    device: str = "cpu"
    loading: str = ""
    calibration: str = ""
    tokenizer: bool = True
    embedding: bool = True
    force: bool = False
    context: int = 0

    @property
    def rank(self) -> int:
        """The N of normal_rN, 0 for normal."""
        found = ALGORITHM.fullmatch(self.algorithm)
        return int(found[1]) if found and found[1] else 0


def check_words(settings: Settings) -> None:
    """Raise UsageError for a value that no release takes for an RK3588."""
    choices: tuple[tuple[str, object, tuple[object, ...]], ...] = (
        ("--npu-cores", settings.cores, CORES), ("--optimization-level", settings.level, LEVELS),
        ("--device", settings.device, DEVICES), ("--load-dtype", settings.loading or LOADINGS[0], LOADINGS),
    )  # fmt: skip
    for name, given, known in choices:
        if given not in known:
            raise UsageError(f"unknown {name} {given!r}; choose {' or '.join(map(str, known))}")
    if not 0 <= settings.hybrid < 1:
        raise UsageError(f"--hybrid-rate {settings.hybrid}: a share of the layers, from 0 to below 1")
    word = settings.algorithm
    if re.fullmatch(r"(grq|gdq)(_r\d+)?", word):
        raise UsageError(
            f"--algorithm {word}: it quantises to 4 bits and needs a GPU; an RK3588 takes w8a8 only: use normal"
        )
    if not ALGORITHM.fullmatch(word) or not ("_" not in word or 1 <= settings.rank <= MOST_RANK):
        raise UsageError(f"unknown --algorithm {word!r}; choose normal, or normal_rN with N from 1 to {MOST_RANK}")


def check_release(settings: Settings, version: str) -> None:
    """Raise UsageError for what this release of the toolkit does not have yet."""
    release = release_of(version)
    since = (
        ("--algorithm normal_rN", settings.rank > 0, RANK_SINCE),
        ("--load-dtype", bool(settings.loading), LONG_SINCE),
        ("--no-export-tokenizer", not settings.tokenizer, SWITCHES_SINCE),
        ("--no-export-embedding", not settings.embedding, SWITCHES_SINCE),
    )
    for name, used, first in since:
        if used and release < first:
            raise UsageError(f"{name}: rkllm-toolkit has it since {'.'.join(map(str, first))}, this is {version}")


def check_model(settings: Settings, dtype: str, shape: Shape, version: str) -> None:
    """Raise UsageError for a model that cannot be converted so."""
    kind = dtype_of(dtype)
    check_group(shape, kind)
    most = LONG if release_of(version) >= LONG_SINCE else SHORT
    asked = settings.context
    if asked % STEP:
        near = f"{asked - asked % STEP or STEP} or {asked - asked % STEP + STEP}"
        raise UsageError(f"--context {asked}: rkllm-toolkit takes multiples of {STEP}; choose {near}")
    if max(asked, shape.context) > most:
        raise UsageError(
            f"--context {max(asked, shape.context)}: rkllm-toolkit {version} makes files for at most {most} tokens"
            + (f"; use 1.2.0 or later, which takes {LONG}" if most == SHORT else "")
        )
    if settings.hybrid and kind.name == "fp16":
        raise UsageError("--hybrid-rate mixes two quantisations; it does not go with fp16")


def doubts(settings: Settings, dtype: str, shape: Shape, version: str) -> Iterator[str]:
    """Say what is allowed and known to go wrong."""
    if shape.family == "gemma2" and dtype != "w8a8":
        yield (
            f"Gemma 2 in {dtype} was seen to fail on boards with `failed to malloc npu memory ... flags: 0x2`;"
            " --dtype w8a8 is the one that is known to load"
        )
    if dtype == "fp16":
        yield "fp16 is not quantised: the file is twice as large and about half as fast as w8a8"
    if settings.level == 1 and max_context(shape.context) >= LONG:
        yield f"--optimization-level 1 with {LONG} tokens was seen to take hours without a word; 0 is faster"
    if settings.device == "cpu" and settings.loading in LOADINGS[1:]:
        yield f"--load-dtype {settings.loading}: on the CPU the toolkit loads float32 all the same"
    if shape.kv_heads * shape.head_dim < LEAST_KV:
        yield (
            f"k and v have {shape.kv_heads * shape.head_dim} outputs; the toolkit was seen to refuse less than"
            f" {LEAST_KV}"
        )


def max_context(context: int) -> int:
    """Return the limit that the file gets: a whole number of steps, at least `context`."""
    return -(-context // STEP) * STEP


def file_limit(version: str, context: int) -> int:
    """Return the limit that this release puts into a file: before 1.2.0 always the same."""
    return max_context(context) if release_of(version) >= LONG_SINCE else SHORT


def steps(
    settings: Settings, version: str, dtype: str, context: int, *, model: str, target: str, lora: str | None,
    dataset: str | None,
) -> list[tuple[str, dict[str, object]]]:  # fmt: skip
    """List the toolkit's calls, each with the arguments that this release has."""
    release = release_of(version)
    load: dict[str, object] = {"model": model, "model_lora": lora, "device": settings.device}
    build: dict[str, object] = {
        "do_quantization": dtype != "fp16", "optimization_level": settings.level, "quantized_dtype": dtype,
        "quantized_algorithm": settings.algorithm, "target_platform": PLATFORM.lower(),
        "num_npu_core": settings.cores, "extra_qparams": None, "dataset": dataset, "hybrid_rate": settings.hybrid,
    }  # fmt: skip
    if dtype == "fp16":
        del build["quantized_dtype"], build["quantized_algorithm"]
    export: dict[str, object] = {"export_path": target}
    if release >= LONG_SINCE:
        load |= {"dtype": settings.loading or LOADINGS[0], "custom_config": None, "load_weight": True}
        build["max_context"] = max_context(context)
    if release >= SWITCHES_SINCE:
        export |= {"export_tokenizer": settings.tokenizer, "export_embedding": settings.embedding}
    return [("load_huggingface", load), ("build", build), ("export_rkllm", export)]


def in_words(settings: Settings, dtype: str) -> str:
    """State how a file was converted, for the manifest."""
    words = [f"optimization_level {settings.level}", f"quantized_algorithm {settings.algorithm}",
             f"hybrid_rate {settings.hybrid:g}", f"device {settings.device}",
             f"calibration {settings.calibration.rpartition('/')[2] or 'none'}"]  # fmt: skip
    words = words if dtype != "fp16" else [word for word in words if not word.startswith(("quantized", "hybrid"))]
    words += [f"load dtype {settings.loading}"] if settings.loading else []
    words += [f"without its {n}" for n in ("tokenizer", "embedding") if not getattr(settings, n)]
    return ", ".join(words)
