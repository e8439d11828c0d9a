"""What a board without enough of something says, on which stream, and what comes first."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from simlib import ERROR, FINISH, GET_HIDDEN, GET_LOGITS, NORMAL, Abi, Handle
from sparsesim import sparse_model

if TYPE_CHECKING:
    from collections.abc import Callable

    Outside = Callable[..., subprocess.CompletedProcess[str]]
    Said = Callable[[], list[str]]

pytestmark = pytest.mark.board

STAMP = re.compile(r"\[\d\d:\d\d:\d\d\.\d{3}\] ")
HERE = "W rkllm: this is the rk-gemma simulator, not Rockchip's library: no NPU is used"
TOO_LOW = "W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7"
MALLOC = ["E RKNN: failed to malloc npu memory, size: {}, flags: 0x2", "E RKNN: load model file error!"]
NO_DEVICE = ["E RKNN: failed to open rknpu module, need to insmod rknpu dirver!",
             "E RKNN: failed to open rknn device!"]  # fmt: skip
FAILED = {"1.1.0": "rknn_init fail! ret=-1", "1.3.0": "E rkllm: rkllm_init failed"}
SIZE = 2614099968  # of gemma-2-2b's weights


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gemma-2-2b's size, no weights."""
    path = tmp_path_factory.mktemp("large") / "model.sim"
    return sparse_model(path, layers=26, hidden=2304, ffn=9216, heads=8, kv_heads=4, head_dim=256, vocab=256000)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """board("npu:\\n  driver: 0.8.2") is the profile of handles opened from now on."""

    def write(text: str) -> None:
        (tmp_path / "board.yaml").write_text(text)
        monkeypatch.setenv("RK_GEMMA_SIM_PROFILE", str(tmp_path / "board.yaml"))

    return write


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """stderr without time stamps and without the line by which the simulator names itself."""
    first, *rest = STAMP.sub("", done.stderr).splitlines()
    assert first == HERE
    return [line for line in rest if line]


@pytest.mark.parametrize("layout", ["1.1.0", "1.3.0"])
def test_an_old_driver_cannot_map_a_large_buffer(layout: str, outside: Outside, large: Path) -> None:
    done = outside(large, layout=layout, profile="npu:\n  driver: 0.9.6\nmemory:\n  ram_gb: 32\n")
    assert answer(done) == {"init": -1, "handle": False}
    assert errors(done) == [
        TOO_LOW + ("." if layout == "1.1.0" else ""),
        "E RKNN: failed to allocate handle, ret: -1, errno: 14, errstr: Bad address",
        MALLOC[0].format(SIZE), MALLOC[1], FAILED[layout],
    ]  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith("I rkllm")]
    assert said[0].startswith(f"I rkllm: rkllm-runtime version: {layout}, rknpu driver version: 0.9.6, ")
    assert [line.split(" ")[2] for line in said[1:]] == (["loading", "rkllm-toolkit"] if layout == "1.3.0" else [])


@pytest.mark.parametrize(
    ("board", "number", "text"),
    [
        ("memory:\n  ram_gb: 4\n  available_gb: 1.2\n", 12, "Cannot allocate memory"),
        ("npu:\n  iommu: off\nmemory:\n  cma_mb: 256\n", 22, "Invalid argument"),
    ],
)
def test_other_numbers(board: str, number: int, text: str, outside: Outside, large: Path) -> None:
    assert errors(outside(large, profile=board)) == [
        f"E RKNN: failed to allocate handle, ret: -1, errno: {number}, errstr: {text}",
        MALLOC[0].format(SIZE), MALLOC[1], FAILED["1.3.0"],
    ]  # fmt: skip


def test_the_kernel_kills_without_a_word(outside: Outside, large: Path) -> None:
    buffered = {"PYTHONUNBUFFERED": ""}  # Python would pass it on to the library's stdout
    memory = "memory:\n  ram_gb: 16\n  available_gb: 2.6\n"
    done = outside(large, profile=memory, arguments=("context=4096",), environment=buffered)
    assert (done.returncode, done.stdout, errors(done)) == (-signal.SIGKILL, "", [])


@pytest.mark.parametrize("layout", ["1.1.0", "1.3.0"])
@pytest.mark.parametrize("npu", ["driver: none", "node: none", "access: false"])
def test_no_device(npu: str, layout: str, outside: Outside, tiny: Path) -> None:
    done = outside(tiny, layout=layout, profile=f"npu:\n  {npu}\n")
    assert answer(done) == {"init": -1, "handle": False}
    assert errors(done) == [*NO_DEVICE, FAILED[layout]]
    assert "rkllm:" not in done.stdout


def test_another_node_is_as_good(outside: Outside, tiny: Path) -> None:
    assert answer(outside(tiny, profile="npu:\n  node: /dev/rknpu\n  access: true\n  group: root\n"))["run"] == 0


@pytest.mark.parametrize("mode", [None, GET_HIDDEN, GET_LOGITS])
def test_a_driver_before_0_9_0_computes_nothing(
    mode: int | None, abi: Abi, tiny: Path, board: Callable[[str], None], said: Said
) -> None:
    board("npu:\n  driver: 0.8.2\n")
    with Handle(abi, tiny) as handle:
        assert handle.returned == 0 and TOO_LOW in said()
        for _ in range(2):
            run = handle.run([2, 10, 20], **({} if mode is None else {"mode": mode}))
            assert (run.returned, run.states, run.values) == (-1, [ERROR], None)
            assert said() == ["E rkllm: matmul(w8a8) run failed"]
    board("npu:\n  driver: 0.9.0\n")
    with Handle(abi, tiny) as handle:
        assert handle.run([2, 10, 20], new=2).states == [NORMAL, NORMAL, FINISH]


CHILD = """
import resource, sys
soft, hard = int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
del sys.argv[1]
import child
child.main()
"""


@pytest.mark.parametrize(
    ("keys", "loads"),
    [
        ("npu:\n  fds: 100\n", True),
        ("npu:\n  fds: 1100\n", False),
        ("npu:\n  fds: none\n", True),
        ("npu:\n  fds: 1100\nsimulator:\n  buffers: 10\n", True),
        ("npu:\n  fds: 10\nsimulator:\n  buffers: 1100\n", False),
    ],
)
def test_descriptors(keys: str, loads: bool, built: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "board.yaml").write_text(keys)
    library = built / os.uname().machine / "1.3.0" / "librkllmrt.so"
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "256", str(library), str(tiny)], cwd=here, capture_output=True, text=True,
        env={**os.environ, "RK_GEMMA_SIM_PROFILE": str(tmp_path / "board.yaml")}, timeout=60,
    )  # fmt: skip
    assert answer(done)["handle"] is loads
    expected = ["E RKNN: failed to allocate handle, ret: -1, errno: 24, errstr: Too many open files",
                MALLOC[0].format(232128512), MALLOC[1], FAILED["1.3.0"]]  # fmt: skip
    assert errors(done) == ([] if loads else expected)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ("npu:\n  driver: newest\n", "npu.driver cannot be 'newest'"),
        ("npu:\n  iommu: maybe\n", "npu.iommu cannot be 'maybe'"),
        ("npu:\n  iova_alignment: wide\n", "npu.iova_alignment cannot be 'wide'"),
        ("npu:\n  multi_domain: 2\n", "npu.multi_domain cannot be '2'"),
        ("npu:\n  access: some\n", "npu.access cannot be 'some'"),
        ("npu:\n  fds: -1\n", "npu.fds cannot be '-1'"),
        ("npu:\n  occupied:\n    16: 4096\n", "npu.occupied has no domain '16'"),
        ("npu:\n  occupied:\n    0: 4096 many\n", "npu.occupied.0 cannot be '4096 many'"),
        ("npu:\n  occupied:\n    0: 4096 0\n", "npu.occupied.0 cannot be '4096 0'"),
        ("npu:\n  occupied: {0: 4096}\n", "npu.occupied is not a block mapping"),
        ("memory: {ram_gb: 4}\n", "memory is not a block mapping"),
        ("memory:\n  ram_gb: 16G\n", "memory.ram_gb cannot be '16G'"),
        ("memory:\n  available_gb: -1\n", "memory.available_gb cannot be '-1'"),
        ("memory:\n  swap_free_gb: 1.2.3\n", "memory.swap_free_gb cannot be '1.2.3'"),
        ("memory:\n  cma_mb: 1e9\n", "memory.cma_mb cannot be '1e9'"),
        ("memory:\n  cma_mb: 99999999\n", "memory.cma_mb cannot be '99999999'"),
    ],
)
def test_unreadable_values(
    keys: str, named: str, abi: Abi, tiny: Path, board: Callable[[str], None], said: Said
) -> None:
    board(keys)
    assert Handle(abi, tiny).returned == -1
    assert said() == [f"E rkllm: simulator profile: {named}"]


def test_a_fixed_refusal_comes_first(outside: Outside, large: Path) -> None:
    old = "npu:\n  driver: 0.9.6\nsimulator:\n"
    done = outside(large, profile=old + "  init: ram\n  init_size: 4096\n")
    assert errors(done)[1:] == [
        "E RKNN: failed to allocate handle, ret: -1, errno: 12, errstr: Cannot allocate memory",
        MALLOC[0].format(4096), MALLOC[1], FAILED["1.3.0"],
    ]  # fmt: skip
    assert answer(outside(large, profile=old + "  init_returns: 0\n")) == {"init": 0, "handle": False}
    silent = "npu:\n  node: none\nsimulator:\n  init_returns: 0\n"
    assert answer(outside(large, profile=silent)) == {"init": 0, "handle": False}


def test_an_init_that_fails_later_gives_back(abi: Abi, tmp_path: Path, said: Said) -> None:
    """The CPU mask is checked when the buffers are there: four of them would fill the domain."""
    model = sparse_model(
        tmp_path / "m.sim", layers=1, hidden=1024, ffn=1024, heads=8, kv_heads=1, head_dim=128, vocab=1043200
    )
    for _ in range(8):
        refused = Handle(abi, model, extend={"enabled_cpus_num": 2, "base_domain_id": 12})
        assert refused.returned == -1
    assert "E rkllm: The number of enabled CPUs must be greater than or equal to the number of NPU cores." in said()
    with Handle(abi, model, extend={"base_domain_id": 12}) as handle:
        assert handle.returned == 0


@pytest.mark.parametrize("dtype", ["w8a8", "w8a8_g128", "fp16", "f32"])
@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_holes_are_computed_with(family: str, dtype: str, abi: Abi, tmp_path: Path) -> None:
    """A file without weights runs: every logit is zero."""
    model = sparse_model(
        tmp_path / "zeros.sim", layers=2, hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64, vocab=4000,
        dtype=dtype, context=256, family=family,
    )  # fmt: skip
    with Handle(abi, model) as handle:
        assert handle.run([2, 10, 20], new=3).tokens == [0, 0, 0]
        values = handle.run([2, 10, 20], mode=GET_LOGITS).values
        assert values is not None and values.shape == (3, 4000) and not values.any()
