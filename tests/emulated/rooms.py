"""What of the runtime's tests runs again as aarch64 code.

What is left out is the same code for every machine: the command line's many ways to be wrong, terminals, signals.
`make test` also leaves to `make test-long` what would run the same aarch64 code once more, or wait once more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

LONG = os.environ.get("RK_GEMMA_LONG") == "1"


@dataclass(frozen=True)
class Room:
    """Test files that are reported together.

    Tests with one of the words `without` in their names are left out; those with one of `later` run in the long part,
    and so do, where there are words `first`, those with none of them.
    """

    files: tuple[str, ...]
    without: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    first: tuple[str, ...] = ()


def runtime(*names: str) -> tuple[str, ...]:
    """Files of tests/runtime by their short names."""
    return tuple(f"tests/runtime/test_{name}.py" for name in names)


# What differs between these layouts and the other three is in the room "every feature of every layout".
OTHER_LAYOUTS = ("1.2.0", "1.2.1b1", "1.3.1")
ROOMS = {
    "layouts": Room(("tests/abi/test_abi_layouts.py", "tests/abi/test_driver_layout.py", *runtime("identification"))),
    "every feature of every layout": Room(runtime("matrix")),
    "inputs and traps": Room(
        runtime("inputs", "traps", "adapter_answers"),
        without=OTHER_LAYOUTS,
        later=("[1.1.0]", "[1.2.1]", "pile_up", "two_processes", "command"),
    ),
    "logits and greedy ids": Room(runtime("greedy"), later=("ends_where_the_context", "sampling_stays")),
    "chat": Room(
        runtime("golden_chat", "prefix_reuse", "history", "text_stream"),
        later=("turns_of_talk[cpu", "turns_of_talk[npu-1.1.0", "long_conversation"),
    ),
    # One refusal that is an answer, one that is a signal; what is said of the others is text.
    "refusals and fallback": Room(
        runtime("refusals", "breakdowns"),
        later=(
            "1.1.0]",
            "[exit",
            "[null",
            "[ram",
            "[fail",
            "[load_error",
            "not_an_rkllm",
            "hang",
            "every_time",
            "[auto-5]",
        ),
    ),
    "doctor": Room(runtime("doctor_readers", "doctor_findings"), without=("prefix", "bytes")),
    # One of each kind: starting a worker twice costs ten seconds here.
    "a worker's life": Room(
        runtime("worker_life", "hosts"),
        first=(
            "its_own[npu]",
            "SIGTERM-npu",
            "loading-npu",
            "loading-cpu",
            "idle-fork-npu",
            "ask-exit",
            "npu-half-way",
            "is_ignored[npu]",
            "(0, 1, 2)-npu",
            "false-npu",
            "directory[npu]",
            "worker_first[npu]",
            "run npu",
            "worker npu-]",
        ),
    ),
    "bundles with an .rkllm": Room(
        runtime("recorded_loads", "rkllm_bundles"),
        without=("command",),
        later=("end_ids", "within_the_files", "never_reaches", "agrees"),
    ),
    "wire and worker": Room(runtime("wire", "stopping", "open_doors"), later=("npu-1.1.0",)),
}
# An interpreter takes a minute to start and to import everything: two of them, side by side, for all rooms.
GUESTS = (
    ("layouts", "inputs and traps", "doctor", "wire and worker", "logits and greedy ids", "bundles with an .rkllm"),
    ("every feature of every layout", "chat", "refusals and fallback", "a worker's life"),
)


def room_of(test: str) -> str:
    """The room of a test by its node id; KeyError for a file that no room names."""
    return {file: name for name, room in ROOMS.items() for file in room.files}[test.partition("::")[0]]


def wanted(test: str) -> bool:
    """Whether a test of a room runs here, today."""
    name, room = test.partition("::")[2], ROOMS[room_of(test)]
    if any(word in name for word in (room.without if LONG else room.without + room.later)):
        return False
    return LONG or not room.first or any(word in name for word in room.first)
