"""What plan, doctor and errors advise can be done with this release: its verbs, its options, its weights."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import typer
from doctorkit import NAMES, readings, tree

from rk_gemma.cli.verbs import whole_app
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.diagnosis.book import Rule, the_book
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.errors import REMEDIES, NpuReason
from rk_gemma_runtime.memory.cures import cures
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.plan import make_plan
from rk_gemma_runtime.memory.request import Request

if TYPE_CHECKING:
    from pathlib import Path

# Options of other programs that are named: docker, pip, git, ps, udevadm.
FOREIGN = {
    "--device", "--group-add", "--security-opt", "--privileged", "--memory", "--force-reinstall", "--recursive",
    "--sort", "--reload", "--index-url", "--no-build-isolation",
}  # fmt: skip
CANNOT = re.compile(r"Q[2-6]_K|IQ\d|export[^;.]*\.rkllm|export[^;.]*NPU weights", re.IGNORECASE)
VARIANTS: list[dict[str, dict[str, Any]]] = [
    {"npu": {"access": False}},
    {"npu": {"iommu": False}},
    {"npu": {"driver": "0.9.7"}},
    {"npu": {"driver": "0.8.8"}},
    {"npu": {"node": "/dev/rknpu", "access": False}},
    {"npu": {"occupied": {0: "4294963200"}, "occupied_by": "frigate"}},
    {"memory": {"ram_gb": 2, "available_gb": 1}},
    {"memory": {"zram_gb": 4, "swap_gb": 4, "swap_free_gb": 4, "available_gb": 1}},
    {"limits": {"nofile_soft": 256, "nofile_hard": 512}, "npu": {"fds": 600}},
    {"cpu": {"online": "0-3", "governor": "ondemand", "big_khz": 408000}},
    {"clocks": {"ddr_hz": 528000000, "npu_hz": 300000000}},
    {"thermal": {"soc_c": 99, "throttled": True}},
]


def surface() -> tuple[set[str], set[str]]:
    """The verbs of this release, and all their options."""
    group: Any = typer.main.get_command(whole_app())
    verbs = [*group.commands.values()]
    verbs += [inner for verb in verbs for inner in getattr(verb, "commands", {}).values()]
    names = {name for verb in verbs for option in verb.params for name in option.opts}
    return set(group.commands), names | {name for option in group.params for name in option.opts}


def check(words: list[str]) -> None:
    verbs, options = surface()
    for text in words:
        assert not CANNOT.search(text), text
        assert set(re.findall(r"rk-gemma ([a-z]+)", text)) <= verbs, text
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        assert named <= options | FOREIGN, (text, named - options - FOREIGN)


def told(folder: Path, bundle: Bundle | None = None) -> list[str]:
    """Every remedy of a board, and every cure of every Gemma on it."""
    report = examine(readings(folder), bundle)
    plans = [make_plan(Request(find_shape(size)), report.board) for size in SIZES]
    return [f.remedy for f in report.findings] + [cure for plan in plans for cure in cures(plan)]


@pytest.mark.parametrize("reason", NpuReason)
def test_every_reason_has_a_remedy_that_can_be_done(reason: NpuReason) -> None:
    check([REMEDIES[reason]])


@pytest.mark.parametrize("rule", the_book().rules, ids=lambda rule: rule.id)
def test_every_rule_advises_what_can_be_done(rule: Rule) -> None:
    check([*rule.remedy, *rule.explanation])


@pytest.mark.parametrize("name", NAMES)
def test_advice_for_every_profile(name: str, tmp_path: Path) -> None:
    check(told(tree(tmp_path, name)))


@pytest.mark.parametrize("number", range(len(VARIANTS)))
def test_advice_for_every_lack(number: int, tmp_path: Path) -> None:
    found = told(tree(tmp_path, **VARIANTS[number]))
    assert len([text for text in found if text]) >= 1
    check(found)


@pytest.mark.parametrize("lack", ["npu", "cpu", "both"])
@pytest.mark.parametrize("name", ["orangepi5-16gb", "npu-full", "iommu-off"])
def test_advice_for_a_bundle(name: str, lack: str, demo_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    parts: dict[str, None] = {key: None for key in ("npu", "cpu") if lack in {key, "both"}}
    check(told(tree(tmp_path, name), Bundle(bundle.directory, replace(bundle.manifest, **parts))))  # type: ignore[arg-type]
