"""Options that several verbs share, and what they mean together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rk_gemma_runtime.backends import Preference
from rk_gemma_runtime.cli.talk import say
from rk_gemma_runtime.engines.base import Sampling
from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from rk_gemma_runtime.answer import Degraded
    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.loading import Applied

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory that `rk-gemma export` wrote.")]
BackendName = Annotated[Preference, typer.Option("--backend", help="NPU else CPU, or one of them.")]
Librkllmrt = Annotated[str, typer.Option("--librkllmrt", metavar="FILE", help="Rockchip's librkllmrt.so.")]
Context = Annotated[int, typer.Option("--context", min=0, help="Tokens of prompt and answer; 0: the model's.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: as many as fit the board.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Choose among the k most likely tokens; 0: all.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="... that together reach this probability.")]
RepeatPenalty = Annotated[float, typer.Option("--repeat-penalty", min=0.1, help="1 is none.")]
Adapter = Annotated[str, typer.Option("--adapter", metavar="NAME[=SCALE]", help="A LoRA adapter of the bundle.")]
NpuDomain = Annotated[
    int,
    typer.Option("--npu-domain", min=0, max=15, help="First IOMMU domain; a second model on the NPU needs its own."),
]
Force = Annotated[bool, typer.Option("--force", help="Load on the NPU even where the plan says that it will fail.")]
Shrink = Annotated[
    bool, typer.Option("--allow-smaller-context", help="Where the context does not fit the NPU, take a smaller one.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
System = Annotated[str, typer.Option("--system", metavar="TEXT", help="System message, put before the first turn.")]


def sampling(temperature: float, top_k: int, top_p: float, repeat_penalty: float) -> Sampling:
    """The options as a Sampling."""
    return Sampling(temperature, top_k, top_p, repeat_penalty)


def open_assistant(bundle: Path, backend: Preference, sampling: Sampling, adapter: str, **options: Any) -> Assistant:
    """The assistant that a verb's options describe. Blocks. Raises as Assistant."""
    from rk_gemma_runtime.assistant import Assistant

    name, scale = _adapter(adapter)
    return Assistant.open(
        bundle,
        backend=backend,
        sampling=sampling,
        adapter=name,
        adapter_scale=scale,
        on_notice=on_notice,
        on_remedy=on_remedy,
        **options,
    )


def _adapter(text: str) -> tuple[str, float]:
    name, sign, scale = text.partition("=")
    try:
        number = float(scale) if sign else 1.0
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (sign and not name):
        raise UsageError(f"--adapter takes NAME or NAME=SCALE, a number, not {text[:60]!r}")
    return name, number


def tell_if_cut(assistant: Assistant) -> None:
    """One line if the answer did not end by itself, or if the conversation no longer fits the context."""
    if assistant.last is not None and assistant.last.finish_reason == "length":
        say("the answer was cut off: --max-tokens or the context is used up")
    if assistant.just_forgot:
        say("the context is full: the oldest exchanges are no longer sent (/save keeps them, /reset starts anew)")


def on_notice(degraded: Degraded) -> None:
    """One line on stderr when the CPU answers for the NPU."""
    say(f"the CPU answers: {degraded.message} [{degraded.cause}] ({degraded.remedy})")


def on_remedy(applied: Applied) -> None:
    """One line on stderr when something was changed to make the NPU load."""
    say(f"the NPU was loaded with {applied.text}")
