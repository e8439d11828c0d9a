"""One conversion: a job for the driver, its progress, and what its end means."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rk_gemma.toolkit.errors import ToolkitError
from rk_gemma.toolkit.process import run
from rk_gemma_runtime.diagnosis import diagnose

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma.toolkit.homes import Environment
    from rk_gemma.toolkit.process import Ended

    Steps = list[tuple[str, dict[str, object]]]
    # A phase in words, and how far all is, from 0 to 1.
    OnProgress = Callable[[str, float], None]

DRIVER = str(Path(__file__).with_name("driver.py"))
# Where in the whole each phase begins and ends; most of the time goes into the building.
PHASES = {
    "import": ("starting", 0.0, 0.02), "load_huggingface": ("loading", 0.02, 0.1), "build": ("building", 0.1, 0.8),
    "export_rkllm": ("exporting", 0.8, 1.0),
}  # fmt: skip
# A build has up to three bars, an export two.
BARS = {"Building model": (0.1, 0.4), "Optimizing model": (0.4, 0.8), "Converting model": (0.8, 0.9)}
COUNTED = re.compile(r"(\w+ \w+): *\d+%\|.*?\| *(\d+)/(\d+)|^\[[=>. #-]*\] *(\d+)/(\d+)")
ACCUSES = re.compile(r"^(ERROR|E )|catch exception|Error\b", re.IGNORECASE)
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "CUDA_VISIBLE_DEVICES", "CUDA_HOME",
             "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "USER", "LOGNAME")  # fmt: skip
CACHES = ("TMPDIR", "HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR",
          "TRITON_CACHE_DIR", "NUMBA_CACHE_DIR")  # fmt: skip


@dataclass
class Conversation:
    """What the driver has told so far."""

    on_progress: OnProgress
    warn: Callable[[str], None]
    step: str = "import"
    toolkit: str = ""
    fault: str = ""
    done: list[str] = field(default_factory=list)
    _at: float = 0.0

    def event(self, event: dict[str, Any]) -> None:
        """Take an event of the driver."""
        kind, step = event.get("event"), str(event.get("step", ""))
        if kind == "step" and step in PHASES:
            self.step = step
            self._tell(PHASES[step][1])
        elif kind == "ready":
            self.toolkit = str(event.get("toolkit", ""))
        elif kind == "returned" and event.get("good"):
            self.done.append(step)
            self._tell(PHASES.get(step, ("", 0.0, self._at))[2])
        elif kind == "returned":
            self.fault = f"returned {event.get('value')}"
        elif kind == "raised":
            self.fault = str(event.get("error", ""))
        elif kind == "dropped":
            self.warn(f"this toolkit's {step} does not take {event.get('argument')}, which is left out")

    def line(self, text: str) -> None:
        """Take a line of the toolkit's output, and of that what says how far it is."""
        found = COUNTED.search(text)
        if found is None:
            return
        start, end = BARS.get(found[1] or "", PHASES[self.step][1:] if not found[1] else (self._at, self._at))
        count, total = (int(number) for number in (found[2] or found[4], found[3] or found[5]))
        self._tell(start + (end - start) * min(1.0, count / max(1, total)))

    def _tell(self, at: float) -> None:
        self._at = max(self._at, at)
        self.on_progress(PHASES[self.step][0], self._at)


def convert(
    env: Environment,
    steps: Steps,
    scratch: Path,
    on_progress: OnProgress = lambda phase, at: None,
    warn: Callable[[str], None] = lambda line: None,
) -> str:
    """Do the steps in a scratch directory, which a guard removes if this process goes; return the toolkit's version.
    Raises ToolkitError."""
    job = scratch / "job.json"
    job.write_text(json.dumps({"steps": steps}), encoding="utf-8")
    talk = Conversation(on_progress, warn)
    command = [str(env.interpreter), "-I", "-u", "-X", "utf8", DRIVER, str(job)]
    ended = run(
        command, folder=scratch, cwd=scratch, env=_environment(scratch), on_line=talk.line, on_event=talk.event
    )
    if ended.code or talk.done != [name for name, _ in steps]:
        raise failure(env, talk, ended)
    return talk.toolkit


def _environment(scratch: Path) -> dict[str, str]:
    """Make an environment in which nothing of ours is imported, nothing is fetched, and caches lie in the scratch
    directory."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    caches = {name: str(scratch / "cache") for name in CACHES}
    (scratch / "cache").mkdir(exist_ok=True)
    return {**kept, **caches, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def failure(env: Environment, talk: Conversation, ended: Ended) -> ToolkitError:
    """Make an error of how it ended: what failed in the toolkit's own words, and the cause that its lines name."""
    lines = (f"INFO: rkllm-toolkit version: {talk.toolkit or env.toolkit}", *ended.lines)
    diagnosis = diagnose([*lines, talk.fault], signal=ended.signal)
    own = [line for line in ended.lines if ACCUSES.search(line)]
    said = own[-1] if own else talk.fault or (ended.lines[-1] if ended.lines else "it printed nothing")
    how = f"was ended by signal {ended.signal}" if ended.signal else "failed"
    phase = PHASES[talk.step][0]
    return ToolkitError(
        f"rkllm-toolkit {talk.toolkit or env.toolkit} ({env.name}) {how} while {phase}: {said[:300]}",
        lines,
        diagnosis,
    )
