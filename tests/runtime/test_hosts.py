"""Hosts that are not a shell: daemons, forking servers, interpreters with another name, directories full of traps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from answerkit import FIRST, Wanted
from lifekit import PRELUDE, environment, result
from runtimekit import patient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.board

Opened = Any  # the fixture `opened`
Start = Any  # the fixture `start`
BOTH = pytest.mark.parametrize("backend", ["npu", "cpu"])
ANSWER = "g = gemma({backend!r})\ntell(ask(g), g.backend, g.degraded and g.degraded.cause)"


@pytest.mark.parametrize("backend", ["npu", "cpu", "auto"])
def test_sigchld_is_ignored(backend: str, start: Start, wanted: Wanted) -> None:
    source = ANSWER.format(backend=backend) + "\ng.close()"
    told = result(start, source, first="import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    assert told == [list(wanted[FIRST]), "cpu" if backend == "cpu" else "npu", None]


def test_sigchld_is_ignored_and_the_worker_dies(start: Start, wanted: Wanted) -> None:
    source = """
g = gemma("auto")
kill_worker(g)
ids = ask(g)
tell(ids, ask(g), g.backend)
"""
    told = result(start, source, first="import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    assert told == [list(wanted[FIRST])] * 2 + ["npu"]


@BOTH
@pytest.mark.parametrize("closed", [(0, 1, 2), (0,), (1, 2), (0, 2)], ids=str)
def test_the_standard_streams_are_closed(closed: tuple[int, ...], backend: str, start: Start, wanted: Wanted) -> None:
    """As an old-style daemon does; what is opened next gets their numbers."""
    first = f"import os\nos.environ['LIFE_OUT'] = str(os.dup2(1, 77))\nfor n in {closed!r}: os.close(n)\n"
    told = result(start, ANSWER.format(backend=backend), first=first)
    assert told == [list(wanted[FIRST]), backend, None]


@BOTH
def test_what_a_daemon_prints_does_not_reach_the_worker(backend: str, start: Start) -> None:
    """Nothing of the runtime's lies where a stream was."""
    first = "import os\nos.environ['LIFE_OUT'] = str(os.dup2(1, 77))\nfor n in (0, 1, 2): os.close(n)\n"
    source = f"""
models = [gemma("{backend}"), gemma("{backend}")]
open_now = [n for n in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{{n}}")]
tell(open_now)
"""
    assert result(start, source, first=first) == [[]]


NOT_PYTHON = {
    "false": 'sys.executable = "/bin/false"',
    "sleeps": 'sys.executable = os.environ["LIFE_UWSGI"]',
    "nothing": 'sys.executable = ""',
    "none": "sys.executable = None",
    "absent": 'sys.executable = "/nonexistent/python3"',
    "base too": 'sys.executable = sys._base_executable = "/bin/false"',
}
NO_PYTHON = """
sys.executable = sys._base_executable = "/bin/false"
sys.prefix = sys.exec_prefix = sys.base_prefix = sys.base_exec_prefix = "/nonexistent"
"""


@pytest.fixture
def uwsgi(tmp_path: Path) -> dict[str, str]:
    """A program that is not a Python and does not end by itself, for which Python is a library."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    script = tmp_path / "uwsgi"
    script.write_text(f"#!/bin/sh\nexec {sleep} 600\n")
    script.chmod(0o755)
    return {"LIFE_UWSGI": str(script)}


@BOTH
@pytest.mark.parametrize("name", NOT_PYTHON)
def test_the_interpreter_is_a_library(
    name: str, backend: str, start: Start, wanted: Wanted, uwsgi: dict[str, str]
) -> None:
    told = result(start, f"{NOT_PYTHON[name]}\n{ANSWER.format(backend=backend)}", env=uwsgi)
    assert told == [list(wanted[FIRST]), backend, None]


def test_an_interpreter_may_be_named(start: Start, wanted: Wanted) -> None:
    env = {"RK_GEMMA_PYTHON": sys.executable}
    told = result(start, NO_PYTHON + ANSWER.format(backend="cpu"), env=env)
    assert told == [list(wanted[FIRST]), "cpu", None]


def test_without_an_interpreter_there_is_one_clear_error_and_nothing_leaks(start: Start) -> None:
    source = f"""{NO_PYTHON}
told = [error(lambda: gemma(backend)) for backend in ("npu", "cpu")]
before = held()
for n in range(5):
    for backend in ("npu", "cpu", "auto"):
        assert error(lambda: gemma(backend))
tell(told, before, held(before))
"""
    told, before, after = result(start, source, env={"RK_GEMMA_PYTHON": "/nonexistent/python3"})
    for kind, text in told:
        assert kind == "EngineError"
        assert "RK_GEMMA_PYTHON" in text
        assert "\n" not in text
    assert after == before


def test_a_spawn_that_fails_leaks_nothing(start: Start) -> None:
    """No process may be started: out of descriptors for the pipes."""
    source = """
import resource
g = gemma("cpu")
g.close()
before = held()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
kinds = set()
for room in range(12):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] + room, hard))
    told = error(lambda: gemma("cpu").close())
    kinds.add(told and told[0])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
tell(sorted(map(str, kinds)), before, held(before))
"""
    kinds, before, after = result(start, source)
    assert set(kinds) <= {"EngineError", "NoBackendError", "WorkerDied", "BundleError", "None"}
    assert after == before


@pytest.mark.parametrize("backend", ["npu", "cpu", "auto"])
def test_a_relative_bundle_and_another_directory(
    backend: str, start: Start, wanted: Wanted, twin_bundle: Path
) -> None:
    source = f"""
os.chdir(os.path.dirname(os.environ["LIFE_BUNDLE"]))
os.environ["LIFE_BUNDLE"] = os.path.basename(os.environ["LIFE_BUNDLE"])
g = gemma({backend!r})
os.chdir("/")
kill_worker(g)
first = ask(g)
tell(first, ask(g), g.backend)
"""
    ids = list(wanted[FIRST])
    assert result(start, source) == [ids, ids, "cpu" if backend == "cpu" else "npu"]


def test_the_cpu_takes_over_from_another_directory(start: Start, wanted: Wanted) -> None:
    source = """
os.chdir(os.path.dirname(os.environ["LIFE_BUNDLE"]))
os.environ["LIFE_BUNDLE"] = os.path.basename(os.environ["LIFE_BUNDLE"])
g = gemma("auto")
os.chdir("/")
tell(ask(g), g.last.backend)
"""
    assert result(start, source, crash_at_token=5) == [list(wanted[FIRST]), "cpu"]


@BOTH
def test_the_kernel_takes_the_worker_first(backend: str, opened: Opened) -> None:
    def score(pid: object) -> int:
        with open(f"/proc/{pid}/oom_score_adj") as file:
            return int(file.read())

    assert score(opened(backend).worker_pid) == min(1000, score("self") + 500)


@pytest.mark.parametrize("kept", [False, True])
def test_dumps_of_prompts_are_not_asked_for(kept: bool, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLM_DUMP_LEVEL", "1")
    if kept:
        monkeypatch.setenv("RK_GEMMA_LOG_PROMPTS", "1")
    assert ("RKLLM_DUMP_LEVEL" in psutil.Process(opened().worker_pid).environ()) == kept


TRAPS = (
    "queue", "json", "struct", "socket", "subprocess", "signal", "logging", "dataclasses", "typing", "ctypes",
    "xllamacpp", "sentencepiece", "numpy", "yaml", "psutil", "typer", "rk_gemma", "rk_gemma_runtime", "sitecustomize",
    "usercustomize",
)  # fmt: skip
VERBS: dict[str, tuple[str, ...]] = {
    "run npu": ("run", "BUNDLE", "Hi", "--backend", "npu", "--temperature", "0"),
    "run cpu": ("run", "BUNDLE", "Hi", "--backend", "cpu", "--temperature", "0"),
    "chat": ("chat", "BUNDLE", "--temperature", "0"),
    "doctor": ("doctor", "BUNDLE"),
    "lib": ("lib",),
    "inspect": ("inspect", "BUNDLE", "--verify"),
    "plan": ("plan", "gemma-2-2b"),
    "tokens": ("tokens", "BUNDLE", "--text", "Hi"),
    "explain": ("explain", "LOG"),
}


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory in which every import leaves a note."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'a').write({name!r} + ' ')\n")
    (folder / "dmesg").write_text("[    1.0] RKNPU fdab0000.npu: RKNPU: rknpu iommu is enabled\n")
    return folder


def sprung(trap: Path) -> str:
    note = trap.parent / "sprung"
    return note.read_text() if note.exists() else ""


@pytest.mark.parametrize("name", VERBS)
def test_no_verb_imports_from_where_it_is_called(
    name: str, trap: Path, twin_bundle: Path, board: Callable[..., dict[str, str]]
) -> None:
    command = trap.parent / "bin" / "rk-gemma"  # its directory is what Python puts in front
    command.parent.mkdir()
    command.write_text("from rk_gemma.cli import main\nmain()\n")
    given = {"BUNDLE": str(twin_bundle), "LOG": "dmesg"}
    words = [given.get(word, word) for word in VERBS[name]]
    done = subprocess.run(
        [sys.executable, str(command), *words],
        cwd=trap, env=environment(board()), input=b"Hi\n", capture_output=True, timeout=patient(90), check=False,
    )  # fmt: skip
    assert sprung(trap) == ""
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0 or name == "doctor", done.stderr.decode()


CHILDREN = {
    "worker npu": ANSWER.format(backend="npu"),
    "worker cpu": ANSWER.format(backend="cpu"),
    "trial": "from rk_gemma_runtime.librkllm.trial import try_library\n"
    "from pathlib import Path\ntell(len(try_library(Path(os.environ['LIFE_LIBRARY'])).runs) > 0)",
    "driver facts": "from rk_gemma_runtime.driver import ask as driver\ntell(sorted(driver.facts('/dev/null')))",
    "driver probe": "from rk_gemma_runtime.driver import ask as driver\ntell(sorted(driver.probe('/dev/null', 1)))",
    "engine": "from rk_gemma_runtime.doctor.live import engine\ntell(json.loads(engine())['fault'])",
}
HEALTHY = {"trial": [True], "driver facts": None, "driver probe": None, "engine": [""]}


@pytest.mark.parametrize("path", ["", "PYTHONPATH ends in a colon", "changed directory"])
@pytest.mark.parametrize("name", CHILDREN)
def test_no_child_of_a_program_imports_from_its_directory(
    name: str, path: str, trap: Path, start: Start, wanted: Wanted
) -> None:
    """Imports of the program itself come first; whatever comes later is a child's."""
    assert PRELUDE.count("\nimport ") == 1
    source = f"import rk_gemma_runtime.doctor.live, rk_gemma_runtime.driver.ask\nos.chdir({str(trap)!r})\n"
    source += CHILDREN[name]
    if path.startswith("PYTHONPATH"):
        source = 'os.environ["PYTHONPATH"] += os.pathsep\n' + source
    told = result(start, source, cwd=None if path else str(trap.parent))
    assert sprung(trap) == ""
    healthy = HEALTHY.get(name, [list(wanted[FIRST]), name[-3:], None])
    assert healthy is None or told == healthy


def test_the_kit_shows_what_is_imported_from_a_directory(trap: Path) -> None:
    """The traps work: `python -m` puts the directory in front."""
    command = [sys.executable, "-m", "json.tool", os.devnull]
    subprocess.run(command, cwd=trap, env=environment({}), capture_output=True, check=False)
    assert "json" in sprung(trap)
