"""What only a board can settle, asked both ways: the suite passes whichever answer the board gives.

The switches stand for list F of what no public source answers (docs/librkllm.md); the simulator's defaults are the
other side of each.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from runtimekit import ROOT, SWITCHES, patient

pytestmark = [pytest.mark.board, pytest.mark.slow]

SHORT = ["test_matrix.py", "test_greedy.py", "test_stopping.py", "test_prefix_reuse.py", "test_history.py"]
# The newest layout on the NPU: the switches are the simulator's and mean the same in every layout.
ONE = "not cpu and not 1.1.0 and not 1.2 and not 1.3.1"
WHOLE = [*SHORT, "test_chat_piped.py", "test_breakdowns.py"]
SETS = {
    "a": "finish_after_abort=error,is_running_busy=0,kv_sliding=window,many_eos=false,template_affects_tokens=true,"
    "split_characters=true,context_full=stop,text_bos=twice",
    "b": "finish_after_abort=false,many_eos=true,null_text=true,kv_dtype=f16",
}


@pytest.mark.parametrize("name", SETS)
def test_the_newest_layout_passes_the_other_way_too(name: str) -> None:
    pass_with(name, SHORT, "-k", ONE)


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_the_suite_passes_the_other_way_too(name: str) -> None:
    pass_with(name, WHOLE)


def pass_with(name: str, names: list[str], *options: str) -> None:
    """pytest on these files with a set of switches, as a process of its own."""
    files = [str(ROOT / "tests" / "runtime" / file) for file in names]
    quiet = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not emulated"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *options, *files],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "TMPDIR"}, SWITCHES: SETS[name]},
        capture_output=True,
        text=True,
        timeout=patient(600),
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"\[100%\]", done.stdout)
