"""What a program imports from rk_gemma_runtime."""

from __future__ import annotations

import subprocess
import sys

import rk_gemma_runtime as rk
from rk_gemma_runtime import errors


def test_every_public_name_is_there_and_has_a_home() -> None:
    assert sorted(rk.__all__) == sorted(name for names in rk._HOMES.values() for name in names)
    for name in rk.__all__:
        assert getattr(rk, name) is not None
    public = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert public - {"Diagnosed"} <= set(rk.__all__)


def test_importing_the_package_imports_none_of_it() -> None:
    code = (
        "import sys, rk_gemma_runtime;"
        "print([m for m in sys.modules if m.startswith('rk_gemma_runtime.') or m in ('numpy', 'xllamacpp')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
