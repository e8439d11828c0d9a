"""A plugin for pytest inside the sysroot: keeps to the rooms, and writes outcomes down as soon as they are known."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.emulated.rooms import room_of, wanted

LEDGER = "RK_GEMMA_TEST_LEDGER"


@pytest.hookimpl(trylast=True)  # after the marks have been looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the rooms leave out; note how many tests each room has."""
    out = [item for item in items if not wanted(item.nodeid)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if wanted(item.nodeid)]
    _note({"planned": Counter(room_of(item.nodeid) for item in items)})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line a test, another one where its set-up or its end failed."""
    if report.when == "call" or report.outcome != "passed":
        text = report.longreprtext if report.failed else ""
        _note({"room": room_of(report.nodeid), "test": report.nodeid, "outcome": report.outcome, "text": text})


def _note(line: dict[str, Any]) -> None:
    with Path(os.environ[LEDGER]).open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line) + "\n")
