"""`rk-gemma doctor` as a command: exit codes, JSON, other roots, captures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from doctorkit import EXPECTED, NAMES, put, tree
from runtimekit import Cli, one_line

from rk_gemma_runtime.doctor import capture
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # each starts programs

SECRETS = {
    "serial": "0a1b2c3d4e5f6071",
    "mac": "aa:bb:cc:dd:ee:ff",
    "address": "192.168.178.23",
    "address6": "fe80:1234:5678:9abc:def0:1234:5678:9abc",
    "home": "/home/margarete",
    "mail": "margarete@example.org",
    "user": "margarete",
    "password": "correct-horse",
}
HOST = "kitchen-board.example.org"
KEPT = "fdab0000.npu: RKNPU: rknpu_gem_get_pages: dma map 3085697024 fail"


def answer(cli: Cli, *arguments: object, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON; stderr says nothing that a person would have to act on."""
    done = cli("doctor", *arguments, "--json", env=env)
    return done.returncode, json.loads(done.stdout)


FEW = ["orangepi5-16gb", "no-permission", "rock5b-driver-0.9.6"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FEW else [pytest.mark.slow]) for n in NAMES])
def test_a_profile_has_its_exit_code_and_its_worst_finding(name: str, cli: Cli) -> None:
    code, found = answer(cli, "--board", name)
    worst = found["findings"][0]
    assert (worst["id"], worst["severity"], code) == EXPECTED[name]
    assert found["exit"] == code
    assert found["usable"] == {"npu": code == 0, "cpu": code != 5}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_capture_of_any_board_gives_the_same_answer(name: str, cli: Cli, tmp_path: Path) -> None:
    check_capture(name, cli, tmp_path)


def test_a_capture_gives_the_same_answer(cli: Cli, tmp_path: Path) -> None:
    check_capture("npu-shared", cli, tmp_path)


def check_capture(name: str, cli: Cli, tmp_path: Path) -> None:
    file, folder = tmp_path / "board.tar", tmp_path / "unpacked"
    first = answer(cli, "--board", name, "--capture", file)
    with tarfile.open(file) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in every 3.11
        tar.extractall(folder)
    assert answer(cli, "--root", file) == first
    assert answer(cli, "--root", folder) == first


def test_people_get_lines(cli: Cli) -> None:
    done = cli("doctor", "--board", "no-permission")
    lines = done.stdout.splitlines()
    assert lines[0] == "error    this user may not open /dev/dri/renderD129"
    assert "> sudo usermod -aG render $USER" in done.stdout
    assert lines[-1] == "only the CPU can be used"
    assert (done.returncode, done.stderr) == (4, "")


def test_this_system(cli: Cli, tmp_path: Path) -> None:
    """Whatever this is: an answer, without a word on stderr, and a capture that says the same."""
    file = tmp_path / "here.tar"
    code, found = answer(cli, "--capture", file)
    assert code in {0, 4, 5} and code == found["exit"]
    assert found["board"]["memory"]["total"]
    again, same = answer(cli, "--root", file)
    assert again == code
    assert [(f["id"], f["severity"]) for f in same["findings"]] == [
        (f["id"], f["severity"]) for f in found["findings"]
    ]
    host = re.escape(socket.gethostname().encode())
    own = b"".join(member_of(file, name) for name in members_of(file) if name.startswith("rk-gemma/"))
    assert len(host) < capture.SHORTEST_NAME or not re.search(rb"\b" + host + rb"\b", own)


def members_of(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def member_of(file: Path, name: str) -> bytes:
    with tarfile.open(file) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return member.read()


def test_a_root_without_anything(cli: Cli, tmp_path: Path) -> None:
    code, found = answer(cli, "--root", tmp_path)
    assert code == 4 and found["findings"][0]["severity"] == "error"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--board", "no-such-board"], "unknown board profile 'no-such-board'; choose"),
        (["--root", "nowhere"], "no such directory or capture"),
        (["--root", "/", "--board", "orangepi5-16gb"], "give one of them"),
    ],
)
def test_what_cannot_be_is_usage(arguments: list[str], words: str, cli: Cli) -> None:
    done = cli("doctor", *arguments)
    assert done.returncode == 2 and words in one_line(done.stderr)


def test_a_bundle_that_is_none(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", tmp_path, "--board", "orangepi5-16gb")
    assert done.returncode == 3 and "no bundle.yaml" in one_line(done.stderr)


@pytest.mark.board
def test_a_bundle_against_boards(cli: Cli, demo_bundle: Path) -> None:
    code, found = answer(cli, demo_bundle, "--board", "orangepi5-16gb")
    ids = {f["id"]: f for f in found["findings"]}
    assert code == 0
    assert (ids["bundle_npu"]["severity"], ids["bundle_cpu"]["severity"]) == ("ok", "ok")
    assert ids["bundle_format"]["severity"] == "note"
    code, found = answer(cli, demo_bundle, "--board", "npu-full")
    assert code == 5  # 90 MiB: llama.cpp's buffers do not fit either
    assert "npu_malloc_no_ram" in {f["cause"] for f in found["findings"] if f["blocks"] == ["npu"]}


@pytest.mark.board
def test_an_explicit_library_is_looked_at(cli: Cli, simulator: Callable[[str], Path]) -> None:
    code, found = answer(cli, "--board", "orangepi5-16gb", "--librkllmrt", simulator("1.3.0"))
    (library,) = (f for f in found["findings"] if f["id"] == "library")
    # The board is aarch64; natively on another machine its library is not for the board.
    here = os.uname().machine == "aarch64"
    assert (library["severity"], code) == (("ok", 0) if here else ("error", 4))


def test_a_card_without_the_library(cli: Cli, tmp_path: Path) -> None:
    folder = tree(tmp_path / "card")
    (folder / "usr/lib").mkdir(parents=True)
    for name in (folder / "rk-gemma").iterdir():
        name.unlink()
    (folder / "rk-gemma").rmdir()
    put(folder, "usr/lib/libc.so.6", "")
    _code, found = answer(cli, "--root", folder)
    (library,) = (f for f in found["findings"] if f["id"] == "library")
    assert library["severity"] == "error" and "/usr/lib" in library["evidence"][0]
    put(folder, "usr/lib/librkllmrt.so", "version https://git-lfs.github.com/spec/v1\n")
    _, found = answer(cli, "--root", folder)
    (library,) = (f for f in found["findings"] if f["id"] == "library")
    assert "git-LFS pointer" in library["evidence"][0] and str(folder) not in library["evidence"][0]


def test_a_probe_needs_the_board(cli: Cli) -> None:
    _, found = answer(cli, "--board", "orangepi5-16gb", "--probe")
    (probe,) = (f for f in found["findings"] if f["id"] == "probe")
    assert probe["evidence"] == ["a probe needs the board itself"]


def plant(folder: Path) -> None:
    """Every secret where a board might show it."""
    info = folder / "proc/cpuinfo"
    info.write_text(info.read_text() + f"Serial\t\t: {SECRETS['serial']}\n")
    put(folder, "proc/device-tree/serial-number", SECRETS["serial"] + "\0")
    put(folder, "proc/cmdline", f"password={SECRETS['password']} androidboot.serialno={SECRETS['serial']}")
    put(folder, "etc/hostname", HOST)
    put(folder, "rk-gemma/users", f"77 {SECRETS['user']}\n")
    put(folder, "rk-gemma/dmesg", "".join(f"{line}\n" for line in [
        f"[    0.000000] Kernel command line: cma=128M serial={SECRETS['serial']} password={SECRETS['password']}",
        f"[    1.0] rk_gmac-dwmac fe1c0000.ethernet: no iommu, MAC {SECRETS['mac']}",
        f"[    2.0] npu: oom-kill: task_memcg=/user/{SECRETS['mail']},addr={SECRETS['address']}",
        f"[    3.0] cma: {SECRETS['address6']} {SECRETS['home']}/models {HOST.partition('.')[0]} rknpu",
        f"[    4.0] usb 1-1: SerialNumber: {SECRETS['serial']}",
        f"[    5.0] RKNPU {KEPT}",
    ]))  # fmt: skip


def test_secrets_stay_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setenv("USER", SECRETS["user"])
    folder, file = tree(tmp_path / "board"), tmp_path / "board.tar"
    plant(folder)
    root = Root(folder)
    read_readings(root)
    capture.write(root, file)
    data = file.read_bytes()
    for name, secret in {**SECRETS, "host": HOST, "short host": HOST.partition(".")[0]}.items():
        assert secret.encode() not in data, name
    assert KEPT.encode() in data
    with tarfile.open(file) as tar:
        names = tar.getnames()
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in tar.getmembers())
    assert names == sorted(names) and "proc/cpuinfo" in names
    assert not {"proc/cmdline", "etc/hostname", "proc/device-tree/serial-number"} & set(names)


def test_the_same_board_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tree(tmp_path / str(number))
        root = Root(folder)
        read_readings(root)
        capture.write(root, tmp_path / f"{number}.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_a_capture_holds_what_the_readers_read_and_nothing_else(tmp_path: Path) -> None:
    folder = tree(tmp_path / "board")
    put(folder, "proc/version", "not asked for")
    root = Root(folder)
    read_readings(root)
    capture.write(root, tmp_path / "board.tar")
    names = set(members_of(tmp_path / "board.tar"))
    all_files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    fan = "sys/class/thermal/cooling_device2/cur_state"  # whether it turns is of no interest
    assert names == all_files - {"proc/version", fan}


def test_a_capture_is_never_written_over(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "board.tar"
    file.write_text("mine")
    done = cli("doctor", "--board", "orangepi5-16gb", "--capture", file)
    assert done.returncode == 2 and "exists" in one_line(done.stderr)
    assert file.read_text() == "mine"
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere.tar")
    assert cli("doctor", "--board", "orangepi5-16gb", "--capture", file).returncode == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith("tar")] == ["board.tar"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """A file size limit stands for the full disk: the write fails in the middle with an errno, as there."""
    import tests.conftest as shared

    folder = tmp_path / "out"
    folder.mkdir()

    def limited() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [*shared.CLI, "doctor", "--board", "orangepi5-16gb", "--capture", str(folder / "board.tar")],
        env=shared.cli_environment(), capture_output=True, text=True, preexec_fn=limited, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "File too large" in one_line(done.stderr)
    assert list(folder.iterdir()) == []


def bad_tar(path: Path, *members: tuple[str, dict[str, Any]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, facts in members:
            member = tarfile.TarInfo(name)
            for key, value in facts.items():
                setattr(member, key, value)
            tar.addfile(member)
    return path


BAD = {
    "up": [("../escaped", {})],
    "up inside": [("proc/../../escaped", {})],
    "link": [("proc/meminfo", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})],
    "hard link": [("proc/meminfo", {"type": tarfile.LNKTYPE, "linkname": "x"})],
    "device": [("dev/null", {"type": tarfile.CHRTYPE})],
    "fifo": [("proc/meminfo", {"type": tarfile.FIFOTYPE})],
    "control": [("proc/\x1b[31m", {})],
    "two things": [("proc/a", {}), ("proc/a/b", {})],
    "long": [("x" * 300, {})],
}


@pytest.mark.parametrize("case", BAD)
def test_a_tar_that_is_no_capture_is_refused(case: str, tmp_path: Path) -> None:
    file, place = bad_tar(tmp_path / "bad.tar", *BAD[case]), tmp_path / "place"
    place.mkdir()
    with pytest.raises(InputError, match=re.escape(str(file))):
        capture.unpack(file, place)
    assert not (tmp_path / "escaped").exists() and not (tmp_path.parent / "escaped").exists()
    assert all(p.is_dir() or (p.is_file() and not p.is_symlink()) for p in place.rglob("*"))


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\x1f\x8b" + bytes(50), bytes(300), b"\xff" * 2000])
def test_a_file_that_is_no_tar(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.tar"
    file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(file))):
        capture.unpack(file, tmp_path)


def test_no_bytes_break_the_unpacking(tmp_path: Path) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    root = Root(tree(tmp_path / "board"))
    read_readings(root)
    capture.write(root, tmp_path / "good.tar")
    good = (tmp_path / "good.tar").read_bytes()
    edits = hypothesis.strategies.lists(
        hypothesis.strategies.tuples(
            hypothesis.strategies.integers(0, 4096), hypothesis.strategies.binary(min_size=1, max_size=12)
        ),
        max_size=4,
    )

    @hypothesis.settings(max_examples=100)
    @hypothesis.given(edits, hypothesis.strategies.integers(0, len(good)))
    def holds(edits: list[tuple[int, bytes]], end: int) -> None:
        data = bytearray(good)
        for at, piece in edits:
            data[at : at + len(piece)] = piece
        file = tmp_path / "edited.tar"
        file.write_bytes(data[:end])
        with tempfile.TemporaryDirectory() as place, contextlib.suppress(InputError):
            capture.unpack(file, Path(place))

    holds()


def test_a_bad_tar_is_one_line(cli: Cli, tmp_path: Path) -> None:
    file = bad_tar(tmp_path / "bad.tar", *BAD["up"])
    done = cli("doctor", "--root", file)
    assert done.returncode == 3 and str(file) in one_line(done.stderr)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.tar"
    with tarfile.open(file, "w") as tar:
        member = tarfile.TarInfo("proc/meminfo")
        member.size = 1 << 40
        tar.fileobj.write(member.tobuf())  # type: ignore[union-attr]
    with pytest.raises(InputError, match="too large"):
        capture.unpack(file, tmp_path)
