"""What the diagnosis' tests share: the logs, and the lines they are made of."""

from __future__ import annotations

import json
from typing import Any

from runtimekit import ROOT

from rk_gemma_runtime.diagnosis import Diagnosis, diagnose

FAILURES = ROOT / "tests" / "data" / "failures"


def logs(name: str) -> list[dict[str, Any]]:
    """The records of reports.jsonl (real) or variations.jsonl (ours)."""
    return [json.loads(line) for line in (FAILURES / name).read_text(encoding="utf-8").splitlines()]


def causes(found: Diagnosis) -> list[str]:
    """First and others."""
    return [verdict.cause for verdict in (found.first, *found.others)]


def banner(runtime: str = "1.2.3", driver: str = "0.9.8") -> str:
    return f"I rkllm: rkllm-runtime version: {runtime}, rknpu driver version: {driver}, platform: RK3588"


def refused(errno: int) -> str:
    return f"E RKNN: [10:00:00.000] failed to allocate handle, ret: -1, errno: {errno}, errstr: text"


def malloc(size: int) -> str:
    return f"E RKNN: [10:00:00.000] failed to malloc npu memory, size: {size}, flags: 0x2"


def cause_of(*lines: str, **known: Any) -> str:
    return diagnose(lines, **known).cause
