"""Before a load the plan, after a failure the diagnosis, in between what the runtime can mend itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from runtimekit import patient, without_cuts
from simask import SimAsk
from sparsesim import sparse_model

from rk_gemma_runtime import Assistant
from rk_gemma_runtime.board import find_profile, read_profile
from rk_gemma_runtime.board.facts import GIB
from rk_gemma_runtime.bundle import SHAPE, Bundle, FileFacts
from rk_gemma_runtime.errors import NpuError, NpuReason
from rk_gemma_runtime.memory.models import find_shape
from rk_gemma_runtime.memory.plan import FITS, plan_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli

pytestmark = [pytest.mark.board, pytest.mark.slow]
QUESTION = ("What is an IOMMU domain?", "--temperature", "0", "--max-tokens", "8")
OLD, NEW = "rock5b-driver-0.9.6", "rock5b-16gb"


@pytest.fixture(scope="module")
def nine(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo for the CPU, and beside it NPU weights of Gemma 2 9B's shape: 11 GB of holes."""
    home = tmp_path_factory.mktemp("nine") / "nine"
    shutil.copytree(demo_bundle, home)
    shape, manifest = find_shape("gemma-2-9b"), Bundle.open(demo_bundle).manifest
    numbers = {key: int(getattr(shape, key)) for key in SHAPE}
    sparse_model(home / "model.sim", vocab=shape.vocab, **numbers)
    assert manifest.npu is not None
    size = (home / "model.sim").stat().st_size
    files = {**manifest.files, "model.sim": FileFacts("0" * 64, size)}
    npu = replace(manifest.npu, max_context=4096)
    changed = replace(manifest, vocab=shape.vocab, shape=numbers, npu=npu, files=files)
    (home / "bundle.yaml").write_text(changed.dump())
    return home


def on(profile: str, simulator: Callable[[str], Path], told: bool = True) -> dict[str, str]:
    """The environment of a board; `told`: the runtime knows which one it is."""
    path = str(find_profile(profile))
    library = str(simulator("1.3.0"))
    environment = {"RK_GEMMA_LIBRKLLMRT": library, "RK_GEMMA_SIM_PROFILE": path}
    return {**environment, "RK_GEMMA_BOARD": path} if told else environment


def test_a_load_that_cannot_fit_is_not_tried(nine: Path, cli: Cli, simulator: Callable[[str], Path]) -> None:
    done = cli("run", nine, *QUESTION, "--json", env=on(OLD, simulator), timeout=patient(60))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["backend"]) == (0, "cpu")
    assert answer["degraded"]["cause"] == "driver_too_old"
    assert "4059037696" in answer["degraded"]["message"] and "0.9.8 would do" in answer["degraded"]["remedy"]
    assert answer["degraded"]["diagnosis"] is None, "nothing was loaded, so the library said nothing"


def test_the_npu_alone_refuses_with_the_reason(nine: Path, cli: Cli, simulator: Callable[[str], Path]) -> None:
    done = cli("run", nine, *QUESTION, "--backend", "npu", env=on(OLD, simulator), timeout=patient(60))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "driver 0.9.6 cannot map a buffer above 2048 MiB" in done.stderr
    assert "--force" in done.stderr


def test_a_forced_load_fails_with_the_vendors_lines_and_their_diagnosis(
    nine: Path, cli: Cli, simulator: Callable[[str], Path]
) -> None:
    done = cli("run", nine, *QUESTION, "--force", "--json", env=on(OLD, simulator), timeout=patient(60))
    degraded = json.loads(done.stdout)["degraded"]
    assert json.loads(done.stdout)["backend"] == "cpu"
    assert degraded["cause"] == "driver_too_old"
    assert "failed to malloc npu memory, size: 4059037696" in degraded["message"]
    evidence = [e["text"] for e in degraded["diagnosis"]["evidence"]]
    assert any("errno: 14" in line for line in evidence), evidence
    assert degraded["diagnosis"]["facts"]["driver_version"] == "0.9.6"


def test_with_the_new_driver_the_plan_says_it_fits_and_it_loads(
    nine: Path, cli: Cli, simulator: Callable[[str], Path]
) -> None:
    done = cli("plan", nine, "--board", NEW, "--json")
    assert json.loads(done.stdout)["verdict"] == FITS
    with SimAsk(simulator("1.3.0")) as sim:
        assert sim.ask(find_profile(NEW).read_text(), nine / "model.sim", 4096).loads
        refused = sim.ask(find_profile(OLD).read_text(), nine / "model.sim", 4096)
    assert (refused.errno, refused.size) == (14, 4059037696)


def variant(tmp_path: Path, **sections: dict[str, Any]) -> Path:
    """The healthy board with other values."""
    tree = yaml.safe_load(find_profile(NEW).read_text())
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    path = tmp_path / "variant.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("told", [True, False], ids=["planned", "found out"])
def test_a_full_domain_is_left_for_the_next(
    told: bool, demo_bundle: Path, cli: Cli, simulator: Callable[[str], Path], tmp_path: Path
) -> None:
    path = variant(tmp_path, npu={"occupied": {0: 4 * GIB - 4096}, "occupied_by": "a vision model"})
    done = cli("run", demo_bundle, *QUESTION, env=on(str(path), simulator, told), timeout=patient(60))
    assert done.returncode == 0
    assert without_cuts(done.stderr) == "rk-gemma: the NPU was loaded with IOMMU domain 1 in place of 0\n"


def test_a_domain_is_changed_once(
    demo_bundle: Path, cli: Cli, simulator: Callable[[str], Path], tmp_path: Path
) -> None:
    path = variant(tmp_path, npu={"occupied": {0: 4 * GIB - 4096, 1: 4 * GIB - 4096}})
    done = cli("run", demo_bundle, *QUESTION, "--json", env=on(str(path), simulator, False), timeout=patient(60))
    assert json.loads(done.stdout)["degraded"]["cause"] == "npu_malloc_iova_exhausted"
    assert "IOMMU domain 1 in place of 0 did not help" in json.loads(done.stdout)["degraded"]["message"]
    remedy = json.loads(done.stdout)["degraded"]["remedy"]
    assert "--npu-domain 2 or above" in remedy and "--npu-domain 1" not in remedy, "1 is what did not help"
    planned = cli("run", demo_bundle, *QUESTION, env=on(str(path), simulator), timeout=patient(60))
    assert "IOMMU domain 2 in place of 0" in planned.stderr


@pytest.mark.parametrize("told", [True, False], ids=["planned", "found out"])
def test_a_smaller_context_is_taken_only_where_it_is_allowed(
    told: bool, demo_bundle: Path, simulator: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(demo_bundle)
    plan = plan_bundle(bundle, read_profile(find_profile(NEW)))
    assert plan is not None
    short = plan.need.total - plan.need.kv // 4
    path = variant(tmp_path, memory={"available_gb": short / GIB})
    for name, value in on(str(path), simulator, told).items():
        monkeypatch.setenv(name, value)
    with Assistant.open(demo_bundle) as refused:
        assert refused.backend == "cpu"
        assert refused.degraded is not None and refused.degraded.cause == "oom_killed"
    with Assistant.open(demo_bundle, shrink=True) as gemma:
        assert gemma.backend == "npu"
        assert 0 < gemma.context < bundle.manifest.context
        assert [a.remedy for a in gemma.remedies][-1] == "context"
        assert "".join(gemma.chat("Hello", max_tokens=4))


def test_a_failure_carries_its_diagnosis_to_python(
    demo_bundle: Path, simulator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in on("npu-full", simulator, told=False).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NpuError) as caught:
        Assistant.open(demo_bundle, backend="npu")
    error = caught.value
    assert error.diagnosis is not None
    assert (error.reason, error.diagnosis.cause) == (NpuReason.NO_RAM, "npu_malloc_no_ram")
    assert error.diagnosis.remedy and error.diagnosis.evidence
    assert error.diagnosis.facts.driver_version == "0.9.8"


def test_the_reason_is_the_diagnosis_and_not_a_first_guess(
    nine: Path, simulator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in on(OLD, simulator).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NpuError) as caught:
        Assistant.open(nine, backend="npu", force=True)
    assert caught.value.reason is NpuReason.DRIVER_TOO_OLD, "errno 14 alone would be a full domain"


def test_what_was_raised_before_the_load_is_reported(
    demo_bundle: Path, simulator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        for name, value in on(NEW, simulator).items():
            monkeypatch.setenv(name, value)
        with Assistant.open(demo_bundle) as gemma:
            assert [a.remedy for a in gemma.remedies] == ["nofile"]
            assert "256" in gemma.remedies[0].text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
