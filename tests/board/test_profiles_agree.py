"""Every profile against every verb: plan, doctor, and who answers in the simulator say one thing."""

from __future__ import annotations

import json
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from simask import SimAsk
from sparsesim import sparse_model

from rk_gemma_runtime.board import find_profile, profile_names, read_profile
from rk_gemma_runtime.board.profile import load_tree
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.doctor.tree import write_tree
from rk_gemma_runtime.memory.models import SIZES, find_shape
from rk_gemma_runtime.memory.plan import NO, carried_out, make_plan, plan_bundle
from rk_gemma_runtime.memory.request import Request
from tests.conftest import CLI, cli_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.board, pytest.mark.slow]
NAMES = profile_names()
LAST = {0: "the NPU can be used", 4: "only the CPU can be used", 5: "nothing can answer"}


def asked(*words: object, env: dict[str, str] | None = None, nofile: int = 0) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        hard = min(nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))

    return subprocess.run(
        [*CLI, *map(str, words)], env=cli_environment(env), capture_output=True, text=True, check=False, timeout=120,
        stdin=subprocess.DEVNULL, preexec_fn=limited if nofile else None,
    )  # fmt: skip


def planned(*words: object) -> dict[str, Any]:
    return dict(json.loads(asked("plan", *words, "--json").stdout))


def loads(plan: dict[str, Any]) -> bool:
    """Another IOMMU domain is what a load takes by itself."""
    return plan["verdict"] != NO or any(cure.startswith("--npu-domain") for cure in plan["cures"])


@pytest.mark.parametrize("name", NAMES)
def test_the_verbs_agree_on_a_bundle(name: str, demo_bundle: Path) -> None:
    plan = planned(demo_bundle, "--board", name)
    doctor = asked("doctor", demo_bundle, "--board", name)
    assert (doctor.returncode == 0) == loads(plan), (plan["verdict"], plan["reasons"], doctor.stdout)
    assert doctor.stdout.splitlines()[-1] == LAST[doctor.returncode]
    fits = "the NPU weights fit this board" in doctor.stdout
    assert not fits or doctor.returncode == 0, doctor.stdout


@pytest.mark.parametrize("told", [True, False], ids=["planned", "found out"])
@pytest.mark.parametrize("name", NAMES)
def test_who_answers_is_what_was_said(
    name: str, told: bool, demo_bundle: Path, simulator: Callable[[str], Path]
) -> None:
    path = str(find_profile(name))
    board = read_profile(find_profile(name))
    plan = plan_bundle(Bundle.open(demo_bundle), board)
    assert plan is not None
    env = {"RK_GEMMA_LIBRKLLMRT": str(simulator("1.3.0")), "RK_GEMMA_SIM_PROFILE": path}
    env |= {"RK_GEMMA_BOARD": path} if told else {}
    words = ("run", demo_bundle, "What is the NPU?", "--max-tokens", "4", "--backend", "auto", "--json")
    done = asked(*words, env=env, nofile=board.limits.nofile_hard or 0)
    assert done.returncode == 0, done.stderr
    expected = "cpu" if carried_out(plan).verdict == NO else "npu"
    assert json.loads(done.stdout)["backend"] == expected, (plan.verdict, plan.reasons, done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_the_verbs_agree_on_every_gemma(name: str, simulator: Callable[[str], Path], tmp_path: Path) -> None:
    path = find_profile(name)
    board = read_profile(path)
    write_tree(load_tree(path), tmp_path / "tree")
    report = examine(read_readings(Root(tmp_path / "tree")))
    plans = [carried_out(make_plan(Request(find_shape(size), limit=8192), board)) for size in SIZES]
    seen = [carried_out(make_plan(Request(find_shape(size), limit=8192), report.board)) for size in SIZES]
    assert [plan.verdict for plan in plans] == [plan.verdict for plan in seen]
    assert report.usable("npu") == any(plan.verdict != NO for plan in plans)
    for plan in plans:
        if any("fails at every matmul" in reason.text for reason in plan.reasons):
            continue  # it loads there
        shape, model = plan.request.shape, tmp_path / "model.sim"
        sparse_model(
            model, layers=shape.layers, hidden=shape.hidden, ffn=shape.ffn, heads=shape.heads, vocab=shape.vocab,
            kv_heads=shape.kv_heads, head_dim=shape.head_dim, dtype="w8a8", context=8192,
            family="gemma2" if shape.norms == 4 else "gemma",
        )  # fmt: skip
        with SimAsk(simulator("1.3.0"), board.limits.nofile_hard) as sim:
            answer = sim.ask(path.read_text(), model, 4096, plan.request.base_domain)
        assert answer.loads == (plan.verdict != NO), (shape.name, plan.verdict, plan.reasons, answer)


def test_advice_about_domains_is_not_taken_ground(tmp_path: Path) -> None:
    write_tree(load_tree(find_profile("npu-shared")), tmp_path)
    report = examine(read_readings(Root(tmp_path)))
    said = "\n".join(report.lines())
    assert "--npu-domain 2" in said and "--npu-domain 1" not in said
    (users,) = (f for f in report.findings if f.id == "npu_users")
    assert report.board.npu.holds and "domain 0, 1" in users.remedy
