"""Runs in the toolkit's own interpreter: does the steps of a job and says on a descriptor how each one ended.

    python -I driver.py JOB.json DESCRIPTOR

JOB has `steps`, a list of [method, arguments]; without steps only the import is tried. Each event is a line of JSON
(docs/toolkit.md). Standard library only, and Python 3.8: nothing of this project is there to be imported.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from typing import Any


class Events:
    """Writes events, each at once."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")

    def tell(self, event: str, **facts: object) -> None:
        """Write one event."""
        self._file.write(json.dumps({"event": event, **facts}) + "\n")
        self._file.flush()


def main() -> int:
    """Run the job; 0 if every step returned 0."""
    events = Events(int(sys.argv[2]))
    step = "import"
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            steps = json.load(file)["steps"]
        events.tell("step", step=step)
        from rkllm.api import RKLLM

        events.tell("ready", toolkit=installed(), python=".".join(map(str, sys.version_info[:3])))
        model = RKLLM() if steps else None
        for step, arguments in steps:
            events.tell("step", step=step)
            method = getattr(model, step)
            code = method(**known(method, step, arguments, events))
            # True and False are numbers too; the documents promise 0 for success and nothing else.
            good = code == 0 and isinstance(code, int) and not isinstance(code, bool)
            events.tell("returned", step=step, good=good, value=repr(code)[:200])
            if not good:
                return 1
    except BaseException as error:  # the process edge: whatever it was, the parent is told
        traceback.print_exc()
        events.tell("raised", step=step, error=f"{type(error).__name__}: {error}"[:2000])
        return 1
    return 0


def known(method: Any, step: str, arguments: dict[str, Any], events: Events) -> dict[str, Any]:
    """Leave out what the method does not take, if it shows what it takes; a compiled one may not."""
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return arguments
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return arguments
    for name in sorted(set(arguments) - set(parameters)):
        events.tell("dropped", step=step, argument=name)
    return {name: value for name, value in arguments.items() if name in parameters}


def installed() -> str:
    """Return the version of the installed wheel, empty if it has no metadata."""
    from importlib import metadata

    try:
        return metadata.version("rkllm-toolkit")
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
