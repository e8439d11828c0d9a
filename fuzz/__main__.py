"""Run each target for its share of the time, in a process of its own, under atheris (libFuzzer)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

# Of the time; explain and the doctor's readers are what strangers reach.
SHARES = {"explain": 0.3, "doctor": 0.2, "lines": 0.04, "profile": 0.04, "config": 0.04, "spec": 0.04,
          "weights": 0.05, "index": 0.04, "vocabulary": 0.05, "manifest": 0.06, "rkllm": 0.08, "gguf": 0.05,
          "card": 0.01}  # fmt: skip
# An input of 64 KiB that takes 5 s is far from linear.
FOUND = Path("build/fuzz")  # inputs that failed
LIMITS = ("-max_len=65536", "-timeout=5", "-rss_limit_mb=2048", f"-artifact_prefix={FOUND}/")


def main() -> int:
    """`python -m fuzz [SECONDS] [TARGET]`; `python -m fuzz --one TARGET ARGUMENTS` is a single fuzzer."""
    if sys.argv[1:2] == ["--one"]:
        return one(sys.argv[2], sys.argv[3:])
    from fuzz.seeds import write_seeds  # not above: what is imported before `one` instruments it is never measured

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    chosen = sys.argv[2:] or list(SHARES)
    FOUND.mkdir(parents=True, exist_ok=True)
    for target in chosen:
        share = seconds if len(chosen) == 1 else max(1, int(seconds * SHARES[target]))
        print(f"== {target}: {share} s", flush=True)
        with tempfile.TemporaryDirectory() as corpus:
            write_seeds(target, Path(corpus))
            command = [sys.executable, "-m", "fuzz", "--one", target, *LIMITS, f"-max_total_time={share}", corpus]
            if subprocess.run(command, check=False).returncode:
                print(f"== {target}: FAILED", flush=True)
                return 1
    print("== no crash, no hang")
    return 0


def one(target: str, arguments: list[str]) -> int:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["rk_gemma_runtime", "rk_gemma"]):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
