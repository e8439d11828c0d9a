"""`make bench`, or `python -m bench [NAME ...]` with names of the parts."""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path

from bench import decode, exporter, overhead, spinning, standing
from bench.table import show
from rk_gemma.export.pipeline import Options, export

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("overhead", "start", "memory", "decode", "export", "spinning")


def main() -> None:
    """Measure the named parts, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    wanted = parser.parse_args().parts or PARTS
    library = ROOT / "build/simulator" / platform.machine() / "1.3.0/librkllmrt.so"
    with tempfile.TemporaryDirectory(prefix="rk-gemma-bench-") as name:
        scratch = Path(name)
        bundle = scratch / "demo"
        export(ROOT / "demo/checkpoint", bundle, Options())
        rows = []
        for part in wanted:
            rows += {
                "overhead": lambda: overhead.measure(library, scratch),
                "start": lambda: standing.cold_start(library, bundle),
                "memory": lambda: standing.idle_memory(library, bundle),
                "decode": lambda: decode.measure(library, bundle, scratch),
                "export": lambda: exporter.measure(scratch),
                "spinning": lambda: spinning.measure(scratch),
            }[part]()
        show(rows)


if __name__ == "__main__":
    main()
