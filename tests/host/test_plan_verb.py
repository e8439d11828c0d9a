"""`rk-gemma plan`: the verdict, the table, the picture, and what it says to nonsense."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from rk_gemma_runtime.memory.models import NAMES
from tests.conftest import DATA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Cli = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow  # each starts programs


def plan(cli: Cli, *words: object) -> dict[str, Any]:
    done = cli("plan", *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def test_the_seed_case_is_told_before_anything_loads(cli: Cli) -> None:
    old = plan(cli, "gemma-2-9b-it", "--board", "rock5b-driver-0.9.6")
    new = plan(cli, "gemma-2-9b-it", "--ram", 16, "--driver", "0.9.8")
    assert (old["verdict"], old["reasons"][0]["cause"]) == ("no", "driver_too_old")
    assert "a kernel with rknpu driver 0.9.8" in old["cures"]
    assert old["cpu"]["quant"] == "Q8_0"
    assert (new["verdict"], new["reasons"], len(new["domains"])) == ("fits", [], 3)


def test_without_a_model_every_gemma_meets_every_size_of_board(cli: Cli) -> None:
    table = plan(cli)
    assert {name: list(row) for name, row in table.items()} == {
        name: ["4 GB", "8 GB", "16 GB", "32 GB"] for name in NAMES if not name.startswith("gemma-1.1")
    }
    assert table["gemma-2-27b"]["16 GB"]["verdict"] == "no"
    assert table["gemma-2-27b"]["32 GB"]["verdict"] == "fits"
    small = plan(cli, "--board", "low-ram")
    assert {name: row["low-ram"]["verdict"] for name, row in small.items()} == dict.fromkeys(table, "no")


def test_a_capture_is_a_board(cli: Cli, tmp_path: Path) -> None:
    capture = tmp_path / "board.tar"
    assert cli("doctor", "--board", "rock5b-driver-0.9.6", "--capture", capture).returncode == 4
    seen = plan(cli, "gemma-2-2b", "--root", capture)
    assert (seen["verdict"], seen["reasons"][0]["cause"]) == ("no", "driver_too_old")


def test_models_that_are_there_add_up(cli: Cli) -> None:
    done = cli("plan", "gemma-2b", "--ram", 32, "--with", "gemma-2-2b", "--with", "gemma-2-9b", "--json")
    tree = json.loads(done.stdout)
    assert "--npu-domain 3" in tree["cures"], "a 2B in domain 0, the 9B in 1 to 3, where there is room left"


def test_a_board_that_nobody_named_is_said_to_be_assumed(cli: Cli) -> None:
    assert "16 GB is assumed" in cli("plan", "gemma-2-2b").stderr
    assert cli("plan", "gemma-2-2b", "--ram", 16).stderr == ""


def test_the_plain_form_has_memory_domains_and_what_would_do(cli: Cli) -> None:
    done = cli("plan", "gemma-2-9b", "--ram", 16, "--with", "gemma-2b")
    assert done.returncode == 0
    first, *rest = done.stdout.splitlines()
    assert first.endswith(": no")
    text = "\n".join(rest)
    for piece in (
        "[npu_malloc_iova_exhausted]",
        "+ --npu-domain 1 would do",
        "kv cache",
        " 0 [xxx",
        "Q8_0",
    ):
        assert piece in text


def test_a_config_and_a_bundle_are_planned_as_they_are(cli: Cli, demo_bundle: Path) -> None:
    config = plan(cli, DATA / "tiny-gemma2" / "config.json", "--context", 64, "--ram", 16)
    assert (config["verdict"], config["context"]) == ("fits", 64)
    assert plan(cli, DATA / "tiny-gemma2", "--context", 64, "--ram", 16)["memory"] == config["memory"]
    bundle = plan(cli, demo_bundle, "--ram", 16)
    sizes = {b["what"]: b["bytes"] for b in bundle["buffers"]}
    # One byte per weight of the file's own linear layers.
    assert sizes["weights"] == linear_bytes(demo_bundle / "model.sim")


def linear_bytes(path: Path) -> int:
    """int8 bytes of a model.sim, from its header."""
    with path.open("rb") as file:
        length = struct.unpack("<8sII", file.read(16))[2]
        lines = file.read(length).decode().splitlines()
    return sum(int(words[6]) for words in map(str.split, lines) if words[0] == "tensor" and words[2] == "i8")


def test_a_picture_is_a_png_and_never_half_written(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "plan.png"
    done = cli("plan", "gemma-2-2b", "--plot", target)
    assert done.returncode == 0
    assert target.read_bytes().startswith(b"\x89PNG") and target.read_bytes().rstrip().endswith(b"IEND\xaeB`\x82")
    assert cli("plan", "gemma-2-2b", "--plot", tmp_path / "none" / "plan.png").returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["plan.png"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gemma-9"], "no model of this name"),
        (["gemma-2b", "--board", "toaster"], "unknown board profile 'toaster'; choose"),
        (["gemma-2b", "--board", "orangepi5-16gb", "--ram", "8"], "leave out --ram, --driver"),
        (["gemma-2b", "--driver", "new"], "unknown --driver 'new'; choose a version"),
        (["gemma-2b", "--ram", "nan"], "not an amount of RAM"),
        (["gemma-2b", "--ram", "-4"], "not an amount of RAM"),
        (["gemma-2b", "--dtype", "w4a16"], "w4a16 is for RK3576"),
        (["--plot", "x.png"], "--plot needs a MODEL"),
        (["gemma-2b", "--with", "gemma-2-27b"], "does not load on this board itself"),
    ],
)
def test_nonsense_gets_one_line(cli: Cli, words: list[str], says: str) -> None:
    done = cli("plan", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\xff" * 50, b"[]", b"{}", b'{"hidden_size": "x"}', b'{"hidden_size": -1}', b"[" * 100_000],
    ids=["empty", "binary", "list", "mapping", "text", "negative", "deep"],
)
def test_a_config_that_is_none_gets_one_line(cli: Cli, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    done = cli("plan", path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "unexpected" not in done.stderr
