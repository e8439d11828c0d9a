"""The driver's room against a stand-in for the driver: what is asked, what is freed, what a hang costs."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import put, tree
from fakedrm.kit import MISC, NODE, Fake, build
from runtimekit import ROOT, patient, wait_until

from rk_gemma_runtime.doctor import board as boards
from rk_gemma_runtime.doctor import live
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.driver import ask
from rk_gemma_runtime.driver.node import by_asking, by_sysfs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # seconds, for what rarely changes

GIB, MIB = 1 << 30, 1 << 20
DOMAIN = 4 * GIB
GRAIN = 16 * MIB
MOST = 3984 * MIB
Make = Callable[..., Fake]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, built once."""
    return build(tmp_path_factory.mktemp("fakedrm"))


@pytest.fixture
def fake(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """fake(setting=value, ...): every process started from now on finds this driver."""

    def make(**settings: Any) -> Fake:
        ledger = tmp_path / "ledger"
        ledger.unlink(missing_ok=True)
        made = Fake(library, ledger, **settings)
        made.install(monkeypatch)
        return made

    return make


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rk_gemma_runtime.driver", *map(str, arguments)]


def python(code: str) -> Any:
    """What a program in a process of its own, which sees the stand-in, prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "runtime", capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", ["0.8.2", "0.9.6", "0.9.8"])
def test_the_driver_says_its_version(version: str, fake: Make) -> None:
    made = fake(version=version, iommu=0)
    found = ask.facts(NODE)
    major, minor, patch = map(int, version.split("."))
    assert found["drm"] == ["rknpu", version, "20240828"]
    assert found["actions"] == {
        "GET_DRV_VERSION": major * 10000 + minor * 100 + patch, "GET_IOMMU_EN": 0, "GET_IOMMU_DOMAIN_ID": 0,
    }  # fmt: skip
    assert made.lines() == ["open", "close 0 left"]


def test_the_misc_device_has_no_drm_version(fake: Make) -> None:
    fake(node=MISC)
    found = ask.facts(MISC)
    assert found["drm"] is None and found["actions"]["GET_DRV_VERSION"] == 908


def test_a_node_that_may_not_be_opened(fake: Make) -> None:
    made = fake(deny=1)
    assert ask.facts(NODE)["refused"] == f"{NODE}: errno {errno.EACCES} (Permission denied)"
    assert ask.probe(NODE, GIB)["refused"].startswith(NODE)
    assert made.lines() == []


def test_a_buffer_and_back(fake: Make) -> None:
    made = fake()
    found = python(f"""
import json
from rk_gemma_runtime.driver.device import Device
from rk_gemma_runtime.driver.ioctl import MemFlag
with Device("{NODE}") as device:
    one = device.mem_create(5000, 3, MemFlag(3))
    two = device.mem_create(5000, 3, MemFlag(3))
    device.mem_destroy(one)
    device.close()
print(json.dumps([one.size, one.domain, one.address - two.address]))""")
    assert found == [8192, 3, 8192]
    assert made.lines() == ["open", "create 1 8192 3 0x3", "create 2 8192 3 0x3", "destroy 1", "close 1 left"]


@pytest.mark.parametrize(
    ("settings", "size", "domain", "error"),
    [
        ({}, 0, 0, errno.EINVAL),
        ({}, 4096, 16, errno.EINVAL),
        ({}, DOMAIN, 0, errno.EFAULT),
        ({"ram": 4096}, 8192, 0, errno.ENOMEM),
        ({"alignment": "size"}, 2 * GIB + 4096, 0, errno.EFAULT),
    ],
)
def test_the_drivers_errno_is_kept(settings: dict[str, Any], size: int, domain: int, error: int, fake: Make) -> None:
    fake(**settings)
    assert (
        python(f"""
import json
from rk_gemma_runtime.driver.device import Device
from rk_gemma_runtime.driver.ioctl import MemFlag
try:
    Device("{NODE}").mem_create({size}, {domain}, MemFlag(3))
except OSError as error:
    print(json.dumps(error.errno))""")
        == error
    )


def test_the_probe_on_a_healthy_driver(fake: Make) -> None:
    made = fake()
    found = ask.probe(NODE, DOMAIN)
    assert (found["largest"], found["largest_exact"]) == (MOST, True)
    assert found["free_exact"] and DOMAIN - found["free"] <= 2 * GRAIN
    assert (found["alignment"], found["multi_domain"], found["flags"]) == ("page", True, 0x403)
    assert found["notes"] == []
    assert made.left() == set() and made.lines()[-1] == "close 0 left"
    switches = [line for line in made.lines() if line.startswith("switch")]
    assert switches == ["switch 1", "switch 0"]  # and back again


def test_the_probe_on_an_old_driver(fake: Make) -> None:
    made = fake(version="0.9.6", alignment="size")
    found = ask.probe(NODE, DOMAIN)
    assert (found["largest"], found["largest_exact"], found["alignment"]) == (2 * GIB, True, "size")
    assert made.left() == set()


def test_a_driver_that_refuses_the_newest_flag(fake: Make) -> None:
    fake(refuses=1024, alignment="size")
    found = ask.probe(NODE, DOMAIN)
    assert (found["flags"], found["largest"]) == (3, 2 * GIB)


def test_a_kernel_with_one_domain_only(fake: Make) -> None:
    fake(domains="stub")
    assert ask.probe(NODE, DOMAIN)["multi_domain"] is False


@pytest.mark.parametrize("alignment", ["page", "size"])
@pytest.mark.parametrize("occupied", [64 * MIB, 1427746880, 3085697024])
def test_what_others_hold_is_missing(occupied: int, alignment: str, fake: Make) -> None:
    fake(occupied=occupied, alignment=alignment)
    found = ask.probe(NODE, DOMAIN)
    room = DOMAIN - 4096 - occupied
    assert abs(room - found["free"]) <= 2 * GRAIN
    if alignment == "page":
        assert 0 <= room - found["largest"] < GRAIN or found["largest"] == MOST
    else:  # the largest power of two that has an aligned place below
        assert found["largest"] <= room and found["largest_exact"]
    # Another domain is not theirs.
    assert ask.probe(NODE, DOMAIN, domain=2)["free"] > DOMAIN - 2 * GRAIN


def test_the_budget_of_ram_is_kept_and_said(fake: Make) -> None:
    made = fake()
    found = ask.probe(NODE, 700 * MIB)
    assert made.most() <= 700 * MIB
    assert (found["largest"], found["largest_exact"]) == (688 * MIB, False)
    assert found["free"] <= 700 * MIB and not found["free_exact"]
    assert any("RAM" in note for note in found["notes"])


def test_pages_that_run_out_are_no_address_space_that_does(fake: Make) -> None:
    fake(ram=GIB)
    found = ask.probe(NODE, DOMAIN)
    assert found["largest"] == GIB and not found["largest_exact"] and not found["free_exact"]


def test_no_buffer_at_all(fake: Make) -> None:
    fake(ram=MIB)
    found = ask.probe(NODE, DOMAIN)
    assert found["largest"] is None and "16 MiB" in found["notes"][0]


def test_time_ends_the_search(fake: Make) -> None:
    made = fake(slow_ms=60, alignment="size")
    found = ask.probe(NODE, DOMAIN, seconds=0.5)
    assert "time is up" in found["notes"] and not found["free_exact"]
    assert made.left() == set()


def test_the_misc_device_is_probed_without_domains(fake: Make) -> None:
    made = fake(node=MISC)
    found = ask.probe(MISC, GIB)
    assert (found["flags"], found["alignment"], found["multi_domain"]) == (2, None, None)
    assert found["largest"] == GIB and made.left() == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(number: signal.Signals, fake: Make) -> None:
    made = fake(slow_ms=20)
    process = subprocess.Popen(command("probe", NODE, DOMAIN, 60, 0), cwd=ROOT / "runtime", stdout=subprocess.PIPE)
    wait_until(lambda: len(made.left()) >= 2, "two buffers are held")
    process.send_signal(number)
    assert process.wait(patient(15)) == 128 + number
    assert process.stdout is not None and process.stdout.read() == b""
    process.stdout.close()
    assert made.left() == set() and made.lines()[-1] == "close 0 left"


def test_ctrl_c_at_the_one_who_asks_ends_the_probe_too(fake: Make) -> None:
    made = fake(slow_ms=20)
    code = f"from rk_gemma_runtime.driver import ask; ask.probe({NODE!r}, {DOMAIN}, seconds=60, kill_after_s=60)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT / "runtime", stderr=subprocess.DEVNULL)
    wait_until(lambda: len(made.left()) >= 2, "two buffers are held")
    process.send_signal(signal.SIGINT)
    assert process.wait(patient(15)) != 0
    assert made.left() == set() and made.lines()[-1] == "close 0 left"


@pytest.mark.parametrize("where", ["version", "action", "create", "destroy"])
def test_a_hang_costs_a_process(where: str, fake: Make) -> None:
    made = fake(hang=where)
    start = time.monotonic()
    found = ask.facts(NODE, 1.5) if where in {"version", "action"} else ask.probe(NODE, GIB, kill_after_s=1.5)
    assert found == {"refused": "the driver did not answer within 1.5 s"}
    assert time.monotonic() - start < patient(10)
    assert f"hang {where}" in made.lines()


def test_sysfs_names_the_node(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    assert by_sysfs(folder / "sys") == NODE
    put(folder, "sys/class/drm/renderD129/device/uevent", "DRIVER=panthor\n")
    assert by_sysfs(folder / "sys") == ""
    assert by_sysfs(tmp_path / "nowhere") == ""


def test_without_sysfs_the_nodes_are_asked(fake: Make, tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    put(dev, "dri/renderD128", "")
    put(dev, "dri/renderD200", "")
    fake(node=str(dev / "dri/renderD200"))
    code = "import json,sys\nfrom pathlib import Path\nfrom rk_gemma_runtime.driver.node import find\n"
    code += f"print(json.dumps(find(Path('/nowhere'), Path({str(dev)!r}))))"
    assert python(code) == str(dev / "dri/renderD200")
    fake(node=str(dev / "dri/renderD200"), name="panthor")
    assert python(code) == ""
    put(dev, "rknpu", "")
    assert by_asking(dev) == MISC


def test_the_doctor_hears_what_the_driver_says(fake: Make, tmp_path: Path) -> None:
    """The live part of the doctor, on a board whose /sys is a tree and whose driver is the stand-in."""
    fake(version="0.9.6")
    folder = tree(tmp_path)
    put(folder, "rk-gemma/nodes", "")
    texts = {name: text.encode() for name, text in live._answers(NODE).items() if name != "node"}
    found = read_readings(Root(folder, {**texts, "rk-gemma/nodes": f"{NODE} 660 root render rw\n".encode()}))
    assert found.driver == "0.9.6" and found.npu.versions[0].where == "the driver's own answer (ioctl)"
    assert found.npu.node is not None and found.npu.node.where == "DRM driver name rknpu"


def test_the_doctor_hears_that_the_driver_is_silent(fake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(hang="action")
    monkeypatch.setattr(ask.facts, "__defaults__", ("", 1.0))
    assert live._answers(NODE) == {"rk-gemma/driver-silent": "the driver did not answer within 1 s\n"}


def test_the_doctor_does_not_probe_beside_others_unless_forced(fake: Make, tmp_path: Path) -> None:
    made = fake(occupied=1427746880)
    root = Root(tree(tmp_path, "npu-shared"))
    boards.probe(root, read_readings(root), live=True, force=False)
    refused = read_readings(root).probe
    assert refused is not None and "a vision model" in refused.refused and "--force" in refused.refused
    assert made.lines() == []
    boards.probe(root, read_readings(root), live=True, force=True)
    found = read_readings(root)
    assert found.probe is not None and found.probe.largest_exact and not found.probe.refused
    (hold,) = found.board().npu.holds
    assert hold.domain == 0 and abs(hold.buffers[0] - 1427746880) <= 2 * GRAIN
    assert made.left() == set() and made.most() <= (found.memory.available or 0) // 2


@pytest.mark.parametrize(
    ("name", "memory", "words"),
    [
        ("no-permission", {}, "may not be opened"),
        ("mainline-no-rknpu", {}, "the NPU has no node"),
        ("low-ram", {"available_gb": 0.1}, "102 MiB of RAM"),
    ],
)
def test_a_probe_that_cannot_be(name: str, memory: dict[str, Any], words: str, fake: Make, tmp_path: Path) -> None:
    made = fake()
    root = Root(tree(tmp_path, name, memory=memory))
    boards.probe(root, read_readings(root), live=True, force=True)
    found = read_readings(root).probe
    assert found is not None and words in found.refused and made.lines() == []


def test_who_has_the_node_open_is_found(tmp_path: Path) -> None:
    node = tmp_path / "renderD129"
    node.write_text("")
    code = f"f = open({str(node)!r}); print('open', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    try:
        assert child.stdout.readline() == b"open\n"
        assert any(line.startswith(f"{child.pid} ") for line in live.users(str(node)).splitlines())
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait()
    assert not any(line.startswith(f"{child.pid} ") for line in live.users(str(node)).splitlines())
