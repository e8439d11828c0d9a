"""One init and one run (or `runs`) in a process of its own; the last line is JSON of what came back last."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from simlib import Abi, Handle

PROMPT = [2, 10, 20, 30, 40]


def main() -> None:
    library, model, *options = sys.argv[1:]
    given = dict(option.split("=") for option in options)
    layout = Path(library).parent.name
    table = Path(__file__).resolve().parents[2] / "board" / "simulator" / "abi" / f"rkllm-{layout}.json"
    context, new = int(given.get("context", 128)), int(given.get("new", 6))
    handle = Handle(Abi(table, Path(library)), model, max_context_len=context, max_new_tokens=new)
    answer = {"init": handle.returned, "handle": bool(handle.handle)}
    if handle.handle:
        ids = [10] * int(given["prompt"]) if "prompt" in given else PROMPT
        for _ in range(int(given.get("runs", 1))):
            run = handle.run(ids)
        answer |= {"run": run.returned, "states": run.states, "tokens": run.tokens}
        handle.call("destroy")
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
