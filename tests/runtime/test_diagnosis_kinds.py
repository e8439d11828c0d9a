"""Kinds of failures beyond the language models' library: each in many spellings, none of them called ok."""

from __future__ import annotations

import re
from typing import Any

import pytest
from diagnosiskit import banner, causes, logs
from test_diagnosis_reports import DRESSES, ids

from rk_gemma_runtime.diagnosis import diagnose
from rk_gemma_runtime.diagnosis.book import the_book

# Lines of public threads, and variants of them that nobody has sent.
KINDS = logs("kinds.jsonl")
LATER = {"kernel_oops", "kernel_hang", "power_domain", "rknn_server", "unsupported_operator"}
VERBS = {"run", "chat", "tokens", "inspect", "toolkit", "lib", "doctor", "explain", "plan", "export", "eval", "pull"}


@pytest.mark.parametrize("case", KINDS, ids=ids)
def test_a_kind_is_told_in_any_spelling(case: dict[str, Any]) -> None:
    found = diagnose(case["log"])
    assert found.cause in case["first"], causes(found)
    if "driver" in case:
        assert found.facts.driver_version == case["driver"]


@pytest.mark.slow
@pytest.mark.parametrize("dress", DRESSES)
def test_what_stands_around_a_kind_changes_nothing(dress: str) -> None:
    wrong = []
    for case in KINDS:
        found = diagnose([DRESSES[dress](line) for line in case["log"]])
        if found.cause not in case["first"]:
            wrong.append((case["id"], causes(found)))
    assert wrong == []


def test_over_all_that_was_collected_the_first_cause_is_right() -> None:
    records = [(r["log"], r["log_only_categories"]) for r in logs("reports.jsonl")]
    records += [(r["log"].split("\n"), r["accept"]) for r in logs("threads.jsonl")]
    records += [(r["log"], r["first"]) for r in KINDS]
    found = [(diagnose(log).cause, accepted) for log, accepted in records]
    right = sum(cause in accepted for cause, accepted in found)
    assert right >= 0.97 * len(records)
    assert [pair for pair in found if (pair[0] == "ok") != (pair[1] == ["ok"]) and pair[0] not in pair[1]] == []


@pytest.mark.parametrize(
    "line",
    [
        "E inference: something that nobody has seen before",
        "E RKNNAPI: rknn_run, something that nobody has seen before",
        "Traceback (most recent call last):",
        "RuntimeError: something that nobody has seen before",
        "[  100.1] ------------[ cut here ]------------",
        "[  100.1] Call trace:",
        "Floating point exception (core dumped)",
        "rknn_outputs_get fail! ret=-3",
    ],
)
def test_ok_leaves_nothing_unexplained(line: str) -> None:
    good = [banner(), "rkllm init success", "I rkllm: rkllm_run ended"]
    assert diagnose(good).cause == "ok"
    for log in ([*good, line], [line, *good]):
        found = diagnose(log)
        assert (found.cause, found.evidence[0].text) == ("other", line)


@pytest.mark.parametrize("signal", [1, 2, 4, 5, 6, 7, 8, 9, 11, 15, 31])
def test_ok_is_not_said_of_a_process_that_a_signal_ended(signal: int) -> None:
    assert diagnose([banner(), "rkllm init success"], signal=signal).cause != "ok"


@pytest.mark.parametrize(
    "line",
    [
        "RKNPU fdab0000.npu: can't request region for resource [mem 0xfdab0000-0xfdabffff]",
        "W Query dynamic range failed. Ret code: RKNN_ERR_FAIL.",
        "W rknn-toolkit-lite2 version: 2.3.2",
        "--> Init runtime environment",
    ],
)
def test_ok_wants_a_sign_that_something_went_well(line: str) -> None:
    assert diagnose([line]).cause == "other"


def test_what_a_cause_explains_is_not_called_unexplained() -> None:
    log = [
        "E RKNN: [17:10:15.696] Invalid RKNN model version 6",
        "E Catch exception when init runtime!",
        "E Traceback (most recent call last):",
        "Exception: RKNN init failed. error code: RKNN_ERR_MODEL_INVALID",
    ]
    assert causes(diagnose(log)) == ["model_version_mismatch"]


def test_the_status_that_a_shell_was_asked_for_is_read() -> None:
    assert diagnose([banner(), "$ ./llm_demo model.rkllm; echo $?", "139"]).cause == "segfault"
    assert diagnose([banner(), "$ echo $?", "0"]).cause == "ok"
    assert diagnose([banner(), "$ echo $?", "", "139 tokens"]).cause == "ok"


def test_an_oops_elsewhere_does_not_hide_what_the_npu_says() -> None:
    oops = "[  100.1] Unable to handle kernel paging request at virtual address dead000000000108"
    refused = "E RKNN: failed to allocate handle, ret: -1, errno: 24, errstr: Too many open files"
    assert causes(diagnose([oops, refused])) == ["fd_limit", "kernel_oops"]
    assert causes(diagnose([oops, "[  100.2]  rknpu_job_done+0x1c/0x80", banner()]))[0] == "kernel_oops"


def test_a_module_that_is_only_listed_is_not_blamed_for_an_oops() -> None:
    oops = ["[  1.1] Internal error: Oops: 96000005 [#1] SMP", "[  1.2] Modules linked in: rknpu brcmfmac"]
    assert diagnose(oops).first.rule == "oops"
    assert diagnose([*oops, "[  1.3] pc : rknpu_gem_mmap+0x10/0x80 [rknpu]"]).first.rule == "oops_npu"


@pytest.mark.parametrize("cause", sorted(LATER))
def test_each_of_the_later_causes_has_a_command_that_works(cause: str) -> None:
    for rule in (rule for rule in the_book().rules if rule.cause == cause):
        commands = re.findall(r"`([^`]+)`", " ".join(rule.remedy))
        assert commands, rule.id


def test_a_remedy_names_only_verbs_that_there_are() -> None:
    told = [
        (r.id, verb) for r in the_book().rules for verb in re.findall(r"`[^`]*?rk-gemma (\w+)", " ".join(r.remedy))
    ]
    assert {verb for _, verb in told} <= VERBS
    assert len(told) > 20


@pytest.mark.parametrize(
    "line",
    [
        "Process finished with exit code 0", "usb 1-1: USB disconnect, device number 139", "wlan0: signal 11 dBm",
        "status 200 in 139 ms", "systemd[1]: llm.service: Main process exited, code=exited, status=0/SUCCESS",
        "[    1.0] Kernel panic on OOPS disabled", "kernel.softlockup_panic = 0", "robot: Killed by a rocket",
        "rcu: Hierarchical RCU implementation.", "vdd_npu_s0: Bringing 500000uV into 675000-675000uV",
        "Kernel command line: root=/dev/mmcblk0 panic=10 oops=panic", "driver: rocket-league",
        "E rknn-toolkit2 version: 2.3.2", "Terminated successfully", "Aborting connection",
        "Warning: rknn-toolkit2 does not support this op on the NPU",
    ],
)  # fmt: skip
def test_words_that_only_look_alike_accuse_nobody(line: str) -> None:
    assert diagnose([banner(), "rkllm init success", line]).cause == "ok"
