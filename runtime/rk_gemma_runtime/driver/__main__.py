"""`python -m rk_gemma_runtime.driver facts [NODE]` and `... probe NODE BUDGET SECONDS DOMAIN`: one line of JSON."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from rk_gemma_runtime.driver.device import Device
from rk_gemma_runtime.driver.ioctl import ActionCode
from rk_gemma_runtime.driver.node import find
from rk_gemma_runtime.driver.probe import Probe

ASKED = (ActionCode.GET_DRV_VERSION, ActionCode.GET_IOMMU_EN, ActionCode.GET_IOMMU_DOMAIN_ID)


def facts(device: Device) -> dict[str, Any]:
    """Ask the driver for its facts; an action that it does not know is left out."""
    found: dict[str, Any] = {"drm": None, "actions": {}}
    if device.drm:
        found["drm"] = [word or "none" for word in device.drm_version()]
    for code in ASKED:
        try:
            found["actions"][code.name] = device.action(code)
        except OSError:
            continue
    return found


def main(arguments: list[str] | None = None) -> int:
    """Answer one question: that of the command line where none is given."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Noted and not raised: an exception between an allocation and its entry in the list would lose the buffer.
        signal.signal(number, lambda number, frame: signals.append(number))
    what, node, *rest = [*arguments, ""][: max(2, len(arguments))]
    node = node or find()
    if not node:
        print(json.dumps({"node": "", "refused": "no node of the rknpu driver"}), flush=True)
        return 0
    try:
        with Device(node) as device:
            if what == "facts":
                answer = facts(device)
            else:
                answer = _probe(device, rest, signals)
    except OSError as error:
        answer = {"refused": f"{node}: errno {error.errno} ({error.strerror})"}
    if signals:
        return 128 + signals[0]
    print(json.dumps({"node": node, **answer}), flush=True)
    return 0


def _probe(device: Device, numbers: list[str], signals: list[int]) -> dict[str, Any]:
    budget, seconds, domain = int(numbers[0]), float(numbers[1]), int(numbers[2])
    return Probe(device, budget, seconds, domain, lambda: bool(signals)).run().tree()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
