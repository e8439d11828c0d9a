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

SUITE = [
    "test_matrix.py", "test_greedy.py", "test_stopping.py", "test_prefix_reuse.py", "test_history.py",
    "test_chat_piped.py", "test_breakdowns.py",
]  # fmt: skip
SETS = {
    "a": "finish_after_abort=error,is_running_busy=0,kv_sliding=window,many_eos=false,template_affects_tokens=true,"
    "split_characters=true,context_full=stop,text_bos=twice",
    "b": "finish_after_abort=false,many_eos=true,null_text=true,kv_dtype=f16",
}


@pytest.mark.parametrize("name", SETS)
def test_the_suite_passes_the_other_way_too(name: str) -> None:
    files = [str(ROOT / "tests" / "runtime" / file) for file in SUITE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not slow and not emulated", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "TMPDIR"}, SWITCHES: SETS[name]},
        capture_output=True,
        text=True,
        timeout=patient(600),
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"\[100%\]", done.stdout)
