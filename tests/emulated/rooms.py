"""What of the runtime's tests runs again as aarch64 code.

What is left out is the same code for every machine: the command line's many ways to be wrong, terminals, signals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """Test files that are reported together; tests with one of the words `without` in their names are left out."""

    files: tuple[str, ...]
    without: tuple[str, ...] = ()


def runtime(*names: str) -> tuple[str, ...]:
    """Files of tests/runtime by their short names."""
    return tuple(f"tests/runtime/test_{name}.py" for name in names)


# What differs between these layouts and the other three is in the room "every feature of every layout".
OTHER_LAYOUTS = ("1.2.0", "1.2.1b1", "1.3.1")
ROOMS = {
    "layouts": Room(("tests/abi/test_abi_layouts.py", "tests/abi/test_driver_layout.py", *runtime("identification"))),
    "every feature of every layout": Room(runtime("matrix")),
    "inputs and traps": Room(runtime("inputs", "traps", "adapter_answers"), OTHER_LAYOUTS),
    "logits and greedy ids": Room(runtime("greedy")),
    "chat": Room(runtime("golden_chat", "prefix_reuse", "history", "text_stream")),
    "refusals and fallback": Room(runtime("refusals", "breakdowns")),
    "doctor": Room(runtime("doctor_readers", "doctor_findings"), ("prefix", "bytes")),
    "wire and worker": Room(runtime("wire", "stopping", "open_doors")),
}
# An interpreter takes a minute to start and to import everything: two of them, side by side, for all rooms.
GUESTS = (
    ("layouts", "inputs and traps", "doctor", "wire and worker"),
    ("every feature of every layout", "logits and greedy ids", "chat", "refusals and fallback"),
)


def room_of(test: str) -> str:
    """The room of a test by its node id; KeyError for a file that no room names."""
    return {file: name for name, room in ROOMS.items() for file in room.files}[test.partition("::")[0]]


def wanted(test: str) -> bool:
    """Whether the room of a test does not leave it out."""
    words = test.partition("::")[2]
    return not any(word in words for word in ROOMS[room_of(test)].without)
