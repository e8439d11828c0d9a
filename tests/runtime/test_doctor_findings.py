"""What the checks make of readings: the worst finding of each profile, and single facts changed one at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import EXPECTED, HEALTHY, NAMES, put, readings, tree

from rk_gemma_runtime.doctor.findings import SEVERITIES, Finding
from rk_gemma_runtime.doctor.report import Report, examine

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = {"version": "1", "machine": "aarch64", "fault": ""}
LIBRARY = {"path": "/usr/lib/librkllmrt.so", "version": "1.3.0", "layout": "1.3.0", "machine": "aarch64",
           "missing": [], "problem": "", "reason": "", "tried": True}  # fmt: skip
PROBE = {"domain": 0, "largest": 3984 << 20, "largest_exact": True, "free": (4 << 30) - 4096, "free_exact": True,
         "alignment": "page", "multi_domain": True, "seconds": 1.0, "notes": []}  # fmt: skip


def report(directory: Path) -> Report:
    """The report of a tree."""
    return examine(readings(directory))


def finding(found: Report, name: str) -> Finding:
    """The finding with this id."""
    return next(f for f in found.findings if f.id == name)


def test_every_profile_is_expected_to_say_something() -> None:
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_worst_finding_of_a_profile(name: str, tmp_path: Path) -> None:
    found = report(tree(tmp_path, name))
    worst = found.findings[0]
    assert (worst.id, worst.severity, found.exit) == EXPECTED[name]
    assert EXPECTED[name] == HEALTHY or worst.remedy
    ranks = [SEVERITIES.index(f.severity) for f in found.findings]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("name", NAMES)
def test_causes_are_those_of_the_rule_book(name: str, tmp_path: Path) -> None:
    from rk_gemma_runtime.diagnosis import CAUSES

    for found in report(tree(tmp_path, name)).findings:
        assert found.cause in {"", *CAUSES}
        assert found.evidence or found.severity in {"note", "ok"} or found.id in {"zram"}


def test_an_empty_root_is_no_board_and_no_alarm_about_what_was_not_read(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert found.exit == 4
    assert {f.id for f in found.findings if f.severity == "error"} == {"soc", "driver_missing"}


def test_a_container_on_another_machine_hides_no_board(tmp_path: Path) -> None:
    put(tmp_path, "rk-gemma/container", "docker\n")
    put(tmp_path, "rk-gemma/uname", "6.1.0 x86_64\n")
    assert "no Rockchip board (machine x86_64)" == finding(report(tmp_path), "soc").title
    put(tmp_path, "rk-gemma/uname", "6.1.0 aarch64\n")
    assert "systempaths=unconfined" in finding(report(tmp_path), "soc_masked").remedy


NODES = {
    "render 660": ("660 root render denied", "sudo usermod -aG render $USER"),
    "video 660": ("660 root video denied", "sudo usermod -aG video $USER"),
    "root 600": ("600 root root denied", 'SUBSYSTEM=="drm"'),
    "group may not": ("640 root render denied", 'SUBSYSTEM=="drm"'),
}


@pytest.mark.parametrize("case", NODES)
def test_the_remedy_for_a_closed_node_is_by_its_group_and_mode(case: str, tmp_path: Path) -> None:
    rights, remedy = NODES[case]
    put(tree(tmp_path), "rk-gemma/nodes", f"/dev/dri/renderD129 {rights}\n")
    found = report(tmp_path)
    assert found.findings[0].id == "node_permission"
    assert found.findings[0].cause == "permission"
    assert remedy in found.findings[0].remedy
    assert found.exit == 4


def test_a_misc_node_gets_a_rule_of_its_own(tmp_path: Path) -> None:
    put(tree(tmp_path, "misc-device"), "rk-gemma/nodes", "/dev/rknpu 600 root root denied\n")
    assert 'KERNEL=="rknpu"' in finding(report(tmp_path), "node_permission").remedy


def test_a_node_that_a_container_was_not_given(tmp_path: Path) -> None:
    put(tree(tmp_path), "rk-gemma/nodes", "")
    put(tmp_path, "rk-gemma/container", "docker\n")
    found = finding(report(tmp_path), "node")
    assert found.severity == "error" and "--device /dev/dri/renderD129" in found.remedy


@pytest.mark.parametrize(
    ("version", "severity", "words", "code"),
    [
        ("0.8.8", "error", "every matmul fails", 4),
        ("0.9.0", "warning", "above 2048 MiB", 4),
        ("0.9.6", "warning", "above 2048 MiB", 4),
        ("0.9.7", "warning", "not known", 0),
        ("0.9.8", "ok", "asks for", 0),
        ("0.9.10", "ok", "asks for", 0),
        ("1.0.0", "ok", "asks for", 0),
    ],
)
def test_what_a_driver_version_cannot_do(version: str, severity: str, words: str, code: int, tmp_path: Path) -> None:
    found = report(tree(tmp_path, npu={"driver": version}))
    assert (finding(found, "driver").severity, found.exit) == (severity, code)
    assert words in finding(found, "driver").title


def test_places_that_contradict_each_other_are_quoted(tmp_path: Path) -> None:
    put(tree(tmp_path), "sys/module/rknpu/version", "0.9.6\n")
    found = report(tmp_path)
    assert len(finding(found, "driver_versions").evidence) == 3
    assert finding(found, "driver").severity == "ok"  # the driver's own answer counts


def test_the_iommu_by_its_sources(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (folder / "rk-gemma/actions").unlink()
    (folder / "rk-gemma/dmesg").unlink()
    assert finding(report(folder), "iommu").severity == "ok"
    (folder / "sys/class/drm/renderD129/device/iommu_group/type").unlink()
    assert finding(report(folder), "iommu").severity == "error"
    put(folder, "rk-gemma/dmesg", "[    6.1] RKNPU: rknpu iommu is enabled, using iommu mode\n")
    assert finding(report(folder), "iommu").severity == "ok"
    put(folder, "rk-gemma/actions", "GET_IOMMU_EN 0\n")
    assert finding(report(folder), "iommu").severity == "error"


def test_with_enough_contiguous_memory_the_iommu_may_be_off(tmp_path: Path) -> None:
    found = report(tree(tmp_path, "iommu-off", memory={"cma_mb": 4096}))
    assert (finding(found, "iommu").severity, found.usable("npu")) == ("warning", True)


def test_a_driver_that_does_not_answer(tmp_path: Path) -> None:
    put(tree(tmp_path), "rk-gemma/driver-silent", "the driver did not answer within 10 s\n")
    found = report(tmp_path)
    assert (found.findings[0].id, found.exit) == ("driver_silent", 4)


def test_users_that_cannot_be_seen_are_said(tmp_path: Path) -> None:
    put(tree(tmp_path), "rk-gemma/users", "812 rknn_server\nunseen 57\n")
    found = report(tmp_path)
    assert finding(found, "npu_users").evidence == ("process 812: rknn_server",)
    assert "57 processes" in finding(found, "npu_users_unseen").title
    assert found.board.npu.users == ("rknn_server",)


def test_cpus_off_line_and_slow_clocks(tmp_path: Path) -> None:
    folder = tree(
        tmp_path, cpu={"online": "0-5", "governor": "ondemand", "big_khz": 408000}, clocks={"ddr_hz": 528000000}
    )
    found = report(folder)
    assert "cpu6/online" in finding(found, "cpu_offline").remedy
    assert "policy4 policy6" in finding(found, "cpu_clock").remedy
    assert finding(found, "ddr_clock").severity == "warning"
    assert "/sys/class/devfreq/dmc/governor" in finding(found, "ddr_clock").remedy


@pytest.mark.parametrize(("degrees", "severity"), [(60, "ok"), (85, "note"), (97, "warning")])
def test_heat(degrees: int, severity: str, tmp_path: Path) -> None:
    assert finding(report(tree(tmp_path, thermal={"soc_c": degrees})), "heat").severity == severity


def engine(folder: Path, **changed: Any) -> Report:
    put(folder, "rk-gemma/engine", json.dumps({**ENGINE, "system": "CPU : NEON = 1 | ARM_FMA = 1 | ", **changed}))
    return report(folder)


def test_an_engine_without_dot_products_on_a_cpu_that_has_them(tmp_path: Path) -> None:
    found = engine(tree(tmp_path))
    slow = finding(found, "cpu_engine_slow")
    assert slow.severity == "warning" and "xllamacpp" in slow.remedy and "about 1.7 times" in slow.evidence[-1]


@pytest.mark.parametrize(
    "changed",
    [
        {"system": "CPU : NEON = 1 | DOTPROD = 1 | "},
        {"machine": "x86_64"},
        {"system": "CPU : SSE3 = 1 | "},
        {"system": ""},
    ],
)
def test_an_engine_that_is_right_or_not_arm_is_not_accused(changed: dict[str, str], tmp_path: Path) -> None:
    assert "cpu_engine_slow" not in {f.id for f in engine(tree(tmp_path), **changed).findings}


def test_a_cpu_without_dot_products_needs_no_other_build(tmp_path: Path) -> None:
    folder = tree(tmp_path, cpu={"features": "fp asimd"})
    assert "cpu_engine_slow" not in {f.id for f in engine(folder).findings}


def test_without_npu_and_engine_nothing_can_answer(tmp_path: Path) -> None:
    found = engine(tree(tmp_path, "no-permission"), fault="loading it ended with signal 4")
    assert found.exit == 5
    assert finding(found, "cpu_engine").cause == "illegal_instruction"
    assert engine(tree(tmp_path / "b"), fault="no module").exit == 0


def library(folder: Path, **changed: Any) -> Report:
    put(folder, "rk-gemma/library", json.dumps({**LIBRARY, **changed}))
    return report(folder)


def test_the_library_as_it_is_told(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    assert finding(library(folder), "library").severity == "ok"
    lacking = library(folder, problem="x: needs libomp.so, which is not here", reason="missing_shared_library")
    assert (lacking.exit, finding(lacking, "library").cause) == (4, "missing_shared_library")
    assert library(folder, machine="armv7l").exit == 4
    assert "rkllm_x" in finding(library(folder, missing=["rkllm_x"]), "library_functions").title
    assert library(folder, path="", problem="no usable librkllmrt.so", reason="no_library").exit == 4


def probed(folder: Path, **changed: Any) -> Report:
    put(folder, "rk-gemma/probe", json.dumps({**PROBE, **changed}))
    return report(folder)


def test_a_probe_decides_what_a_version_leaves_open(tmp_path: Path) -> None:
    folder = tree(tmp_path, npu={"driver": "0.9.7"})
    assert finding(probed(folder), "driver").severity == "ok"
    old = probed(folder, alignment="size", largest=2048 << 20)
    assert finding(old, "driver").severity == "warning"
    assert finding(old, "probe").cause == "driver_too_old"
    assert old.board.npu.alignment == "size"


def test_a_probe_that_finds_others(tmp_path: Path) -> None:
    found = probed(tree(tmp_path), largest=1024 << 20, free=1200 << 20)
    assert finding(found, "probe").cause == "npu_malloc_iova_exhausted"
    assert "others hold" in finding(found, "probe_free").title
    (hold,) = found.board.npu.holds
    assert hold.domain == 0 and abs(hold.buffers[0] - ((4096 - 1200) << 20)) < 1 << 20


def test_a_probe_that_ran_out_of_ram_is_a_lower_bound(tmp_path: Path) -> None:
    found = probed(tree(tmp_path), largest=1024 << 20, largest_exact=False, free=512 << 20, free_exact=False)
    assert finding(found, "probe").severity == "ok"
    assert "at least 1024 MiB" in finding(found, "probe").title
    assert found.board.npu.holds == ()


def test_a_probe_that_was_refused(tmp_path: Path) -> None:
    put(tree(tmp_path), "rk-gemma/probe", json.dumps({"refused": "others use the NPU (frigate)"}))
    assert finding(report(tmp_path), "probe").evidence == ("others use the NPU (frigate)",)


def test_what_could_not_be_read_is_one_finding(tmp_path: Path) -> None:
    put(tree(tmp_path), "proc/swaps", "junk")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "hot")
    lines = finding(report(tmp_path), "unreadable").evidence
    assert any(line.startswith("could not read /proc/swaps: ") for line in lines)
    assert any("thermal_zone0/temp" in line for line in lines)


def test_a_log_that_is_denied_is_told_once(tmp_path: Path) -> None:
    (tree(tmp_path) / "rk-gemma/dmesg").unlink()
    denied = "".join(f"{name}\tpermission denied\n" for name in ("rk-gemma/dmesg", "sys/kernel/debug/rknpu/load"))
    put(tmp_path, "rk-gemma/unreadable", denied)
    found = report(tmp_path)
    assert "sudo dmesg | rk-gemma explain" in finding(found, "kernel_log").remedy
    assert "unreadable" not in {f.id for f in found.findings}


def test_evidence_cannot_break_a_line(tmp_path: Path) -> None:
    put(tree(tmp_path), "proc/device-tree/model", "Board\n\x1b[31mred\0")
    for line in report(tmp_path).lines():
        assert line.isprintable()


def test_the_report_as_a_tree_is_json(tmp_path: Path) -> None:
    found = json.loads(json.dumps(report(tree(tmp_path, "npu-shared")).tree()))
    assert set(found) == {"usable", "exit", "findings", "board"}
    assert found["usable"] == {"npu": True, "cpu": True}
    assert set(found["findings"][0]) == {"id", "severity", "title", "evidence", "remedy", "cause", "blocks"}
    assert found["board"]["npu"]["driver"] == "0.9.8"
