"""The packages of each release resolve for each Python, or do not, as the table of combinations says (a dry run)."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from rk_gemma.toolkit.releases import RELEASES, Release

# The ends of each table; what lies between is for the long part, where each takes ten seconds.
CASES = [
    pytest.param(release, minor, marks=pytest.mark.long if minor in (10, 11) or release.version == "1.3.1" else ())
    for release in RELEASES if release.pins for minor in (8, 9, 10, 11, 12)
]  # fmt: skip
OFFLINE = re.compile(r"error sending request|failed to fetch|dns error|connect(ion)? (error|refused)", re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize(("release", "minor"), CASES, ids=lambda x: x.version if isinstance(x, Release) else f"3.{x}")
def test_pins_resolve_where_the_table_says_so(release: Release, minor: int) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed; run: pip install uv")
    done = subprocess.run(
        [uv, "pip", "compile", "-", "--python-version", f"3.{minor}", "--python-platform", "x86_64-manylinux_2_28",
         "--no-header", "-q"],
        input="\n".join(release.pins), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if OFFLINE.search(done.stderr):
        pytest.skip("the package index cannot be reached; run it with a network")
    good = minor in release.pythons and minor not in dict(release.broken)
    assert (done.returncode == 0) == good, done.stderr
