"""Options that several verbs share, and what they mean together."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.cli.progress import ProgressLine
from rk_gemma_runtime.cli.talk import say
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.events import Applied, Degraded, Noticed, Progress
from rk_gemma_runtime.jobs import Sampling
from rk_gemma_runtime.options import Limits, Options, Preference

if TYPE_CHECKING:
    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.cli.answertext import AnswerText
    from rk_gemma_runtime.events import Event

USUAL = Sampling()
USUAL_TOKENS = 1024

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
    typer.Option("--npu-domain", min=0, max=DOMAINS - 1, help="First IOMMU domain; a second model needs its own."),
]
Force = Annotated[bool, typer.Option("--force", help="Load on the NPU even where the plan says that it will fail.")]
Shrink = Annotated[
    bool, typer.Option("--allow-smaller-context", help="Where the context does not fit the NPU, take a smaller one.")
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="NAME=SECONDS", help="How long silence is borne, such as token_s=60; again for more."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
System = Annotated[str, typer.Option("--system", metavar="TEXT", help="System message, put before the first turn.")]


def options(
    *,
    backend: Preference,
    temperature: float,
    top_k: int,
    top_p: float,
    repeat_penalty: float,
    context: int,
    threads: int,
    librkllmrt: str,
    adapter: str,
    npu_domain: int,
    force: bool,
    shrink: bool,
    limit: list[str] | None,
) -> Options:
    """What the options of `run` and `chat` say together. Raises UsageError."""
    name, scale = _adapter(adapter)
    return Options(
        backend=backend,
        librkllmrt=librkllmrt,
        context=context,
        threads=threads,
        limits=Limits().changed(dict(map(_limit, limit or ()))),
        sampling=Sampling(temperature, top_k, top_p, repeat_penalty),
        adapter=name,
        adapter_scale=scale,
        domain=npu_domain,
        force=force,
        shrink=shrink,
    )


def open_assistant(opened: Bundle, options: Options, text: AnswerText, load: bool = True) -> Assistant:
    """The assistant of a verb, which tells the person what happens, beside the `text` of its answers. Blocks while it
    loads, which is with the first answer unless `load`. Raises as Assistant."""
    from rk_gemma_runtime.assistant import Assistant
    from rk_gemma_runtime.doctor.short import cpu_is_short

    short = cpu_is_short(opened)
    if short and options.backend == "cpu":
        say(short)
    return Assistant(opened, options, on_event=Teller(text, short).tell, load=load)


class Teller:
    """One line on stderr for what a person should know, and on a terminal how far a long wait is."""

    def __init__(self, text: AnswerText, short: str = "") -> None:
        """`text`: the answers on stdout; `short`: what there is to say when the CPU takes over."""
        self._progress, self._text, self._short = ProgressLine(), text, short

    def tell(self, event: Event) -> None:
        """Called from whichever thread it happens in."""
        if isinstance(event, Progress):
            self._progress.show(event)
            return
        self._progress.clear()
        self._text.step_aside()
        if isinstance(event, Degraded):
            say(f"the CPU answers: {event.message} [{event.cause}] ({event.remedy}){_again(event)}")
            if self._short:
                say(self._short)
        elif isinstance(event, Applied):
            say(f"the NPU was loaded with {event.text}")
        elif isinstance(event, Noticed):
            say(f"{event.message} [{event.cause}]")
        else:
            say("the NPU has loaded; it answers from now on")


def _again(degraded: Degraded) -> str:
    if degraded.retry_at is None:
        return ""
    return f"; tried again in {max(1, round(degraded.retry_at - time.time()))} s"


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise UsageError(f"--limit takes NAME=SECONDS, not {text[:60]!r}") from None


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
