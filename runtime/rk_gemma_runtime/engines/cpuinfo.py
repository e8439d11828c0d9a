"""`python -m rk_gemma_runtime.engines.cpuinfo`: one line of JSON about llama.cpp as installed here.

A process of its own, because a build for another CPU ends in SIGILL as soon as it is loaded.
"""

from __future__ import annotations

import json
import os


def describe() -> dict[str, str]:
    """`system` are llama.cpp's switches as it prints them; `fault` why it cannot be used, or ""."""
    facts = {"version": "", "machine": os.uname().machine, "system": "", "fault": ""}
    try:
        import xllamacpp
    except ImportError as error:
        return {**facts, "fault": f"{type(error).__name__}: {error}"[:200]}
    return {**facts, "version": str(xllamacpp.__version__), "system": str(xllamacpp.get_system_info())}


def main() -> None:
    """Print the line."""
    print(json.dumps(describe()))


if __name__ == "__main__":
    main()
