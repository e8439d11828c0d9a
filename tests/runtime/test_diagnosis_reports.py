"""Real reports and variations of them: the first cause is one that the log alone allows."""

from __future__ import annotations

from typing import Any

import pytest
from diagnosiskit import banner, causes, logs, refused

from rk_gemma_runtime.diagnosis import CAUSES, diagnose

REPORTS = logs("reports.jsonl")
VARIATIONS = logs("variations.jsonl")
# Public threads, collected and labelled by somebody who had not seen the rules.
THREADS = logs("threads.jsonl")
# How a log reaches a person: each keeps what it says.
DRESSES = {
    "journald": lambda line: f"Nov 21 10:00:00 rock-5b llm[812]: {line}",
    "short-iso": lambda line: f"2026-11-21T10:00:00+0000 rock-5b llm[812]: {line}",
    "compose": lambda line: f"llm-1  | {line}",
    "kubernetes": lambda line: f"2026-11-21T10:00:00.123456789Z stderr F {line}",
    "dmesg": lambda line: f"[   12.345678] {line}",
    "colour": lambda line: f"\x1b[1;31m{line}\x1b[0m",
    "crlf": lambda line: f"{line}\r",
    "bullet": lambda line: f"- `{line}`",
    "quote": lambda line: f"> {line}",
    "logger": lambda line: f"2026-11-21 10:00:00,123 ERROR {line}",
}


def ids(record: dict[str, Any]) -> str:
    return str(record["id"])


@pytest.mark.parametrize("report", [r for r in REPORTS if r["parser_test"]], ids=ids)
def test_a_report_gets_a_cause_that_its_log_allows(report: dict[str, Any]) -> None:
    found = diagnose(report["log"])
    assert found.cause in report["log_only_categories"], causes(found)
    assert set(causes(found)) <= set(CAUSES)


@pytest.mark.parametrize("report", [r for r in REPORTS if not r["parser_test"]], ids=ids)
def test_normal_lines_are_not_accused(report: dict[str, Any]) -> None:
    assert report["log_only_categories"] == ["ok"]
    assert diagnose(report["log"]).cause == "ok"


def test_of_threads_that_the_rules_were_not_made_for_nearly_all_are_told() -> None:
    wrong, accused = [], []
    for record in THREADS:
        found = diagnose(record["log"].split("\n"))
        if found.cause not in record["accept"]:
            wrong.append((record["id"], causes(found)))
        if found.cause in record["must_not"]:
            accused.append((record["id"], found.cause))
    assert len(THREADS) > 100
    assert len(wrong) <= 0.05 * len(THREADS), wrong
    assert accused == []


def test_two_loads_in_one_log_may_fail_in_two_ways() -> None:
    size = "E RKNN: failed to malloc npu memory, size: 3085697024, flags: 0x2"
    no_ram = [banner("1.2.3", "0.9.8"), refused(12), size, "E rkllm: rkllm_init failed"]
    too_old = [banner("1.2.1", "0.9.6"), refused(14), size, "E rkllm: rkllm_init failed"]
    for log in ([*no_ram, *too_old], [*too_old, *no_ram]):
        assert {"npu_malloc_no_ram", "driver_too_old"} <= set(causes(diagnose(log)))


@pytest.mark.parametrize("dress", DRESSES)
def test_what_stands_around_a_line_changes_nothing(dress: str) -> None:
    for report in (r for r in REPORTS if r["parser_test"]):
        found = diagnose([DRESSES[dress](line) for line in report["log"]])
        assert found.cause in report["log_only_categories"], (report["id"], causes(found))


@pytest.mark.parametrize("case", VARIATIONS, ids=ids)
def test_a_log_nobody_has_sent(case: dict[str, Any]) -> None:
    found = diagnose(case["log"])
    assert found.cause in case["first"], causes(found)
    if "second" in case:
        assert causes(found)[1] in case["second"]


def test_what_is_known_of_the_versions_narrows_it_down() -> None:
    for report in (r for r in REPORTS if r["parser_test"] and r["category"] in CAUSES):
        if report["driver_version"] and report["category"] in {"driver_too_old", "npu_malloc_iova_exhausted"}:
            found = diagnose(report["log"], known={"driver_version": report["driver_version"]})
            allowed = {report["category"], *report["log_only_categories"]}
            assert found.cause in allowed, (report["id"], causes(found))


def test_each_evidence_is_a_line_of_the_log() -> None:
    for record in (*REPORTS, *VARIATIONS):
        found = diagnose(record["log"])
        for verdict in (found.first, *found.others):
            assert len(verdict.evidence) <= 8
            for evidence in verdict.evidence:
                assert 1 <= evidence.line <= len(record["log"])
                assert len(evidence.text) <= 300
                assert evidence.text.isprintable()


def test_no_text_has_a_hole_in_it() -> None:
    for record in (*REPORTS, *VARIATIONS):
        found = diagnose(record["log"])
        for verdict in (found.first, *found.others):
            for text in (verdict.explanation, verdict.remedy):
                assert text.endswith("."), text
                assert "None" not in text
                assert "{" not in text
