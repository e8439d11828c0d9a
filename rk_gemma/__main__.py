"""`python -m rk_gemma`: the same as `rk-gemma`, where that is not on PATH."""

from __future__ import annotations

from rk_gemma.cli import main

if __name__ == "__main__":
    main()
