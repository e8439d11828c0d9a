"""`rk-gemma toolkit`: what is refused before anything is installed, and what an environment is."""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from standin import TAG, VERSIONS, build_wheel

from rk_gemma.toolkit import homes, install, interpreter
from rk_gemma.toolkit.errors import HostError, WheelError
from rk_gemma.toolkit.interpreter import Interpreter
from rk_gemma.toolkit.process import Ended
from rk_gemma.toolkit.releases import (
    LAST,
    RELEASES,
    check_release,
    name_of,
    pins_of,
    read_pins,
    split_torch,
)
from rk_gemma.toolkit.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = sys.version_info[:2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RK_GEMMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "toolkits"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_life_of_an_environment(version: str, tmp_path: Path, home: Path, main: Callable[..., Any]) -> None:
    wheel = build_wheel(tmp_path, version)
    name = f"rkllm-{version}-{TAG}"
    done = main("toolkit", "setup", "--wheel", wheel, "--no-pins")
    assert (done.code, done.stdout) == (0, ""), done.stderr
    assert f"`rk-gemma toolkit check {name}`" in done.stderr.splitlines()[-1]
    (env,) = json.loads(main("toolkit", "list", "--json").stdout)
    assert (env["name"], env["toolkit"], env["usable"], env["packages"]) == (name, version, True, "none")
    checked = main("toolkit", "check")
    assert checked.code == 0 and f"rkllm-toolkit {version} works" in checked.stdout, checked.stderr
    again = main("toolkit", "setup", "--wheel", wheel, "--no-pins")
    assert (again.code, len(again.stderr.splitlines())) == (3, 1) and "exists" in again.stderr
    (home / name / "bin" / "python").unlink()
    assert "its Python is gone" in main("toolkit", "list").stdout
    assert main("toolkit", "check").code == 3
    assert main("toolkit", "remove", name).code == 0
    assert not list(home.iterdir())
    assert main("toolkit", "remove", name).code == 2


@pytest.mark.parametrize(("content", "said"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a Git LFS pointer"),
    (b"<!DOCTYPE html><html>", "a web page"), (b'{"error": "x"}', "JSON"), (b"", "empty"),
    (b"PK\x03\x04abc", "cut short"),
    (b"\0" * 4096, "cut short"), (None, "cannot be read"),
])  # fmt: skip
def test_what_is_no_wheel_is_named(
    content: bytes | None, said: str, tmp_path: Path, main: Callable[..., Any]
) -> None:
    path = tmp_path / "rkllm_toolkit-1.2.3-cp310-cp310-linux_x86_64.whl"
    if content is not None:
        path.write_bytes(content)
    done = main("toolkit", "setup", "--wheel", path)
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert said in done.stderr and path.name in done.stderr


@pytest.mark.parametrize("name", ["toolkit.whl", "rkllm_toolkit-1.2.3-cp312-cp312-linux_x86_64.whl", "a (1).whl",
                                  "rkllm_toolkit-1.3.0-{tag}-{tag}-linux_x86_64.whl", "rkllm_toolkit.zip",
                                  "rkllm_toolkit-1.2.3-{tag}-{tag}-linux_aarch64.whl"])  # fmt: skip
def test_a_renamed_wheel_is_told_its_name(name: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    path = build_wheel(tmp_path, "1.2.3", name=name.format(tag=TAG if TAG != "cp312" else "cp311"))
    done = main("toolkit", "setup", "--wheel", path, "--no-pins")
    assert (done.code, f"rkllm_toolkit-1.2.3-{TAG}-{TAG}-linux_x86_64.whl" in done.stderr) == (3, True)


def test_damaged_and_foreign_wheels(tmp_path: Path) -> None:
    path = build_wheel(tmp_path, "1.2.3")
    data = bytearray(path.read_bytes())
    at = data.find(b"class RKLLM")
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(WheelError, match="damaged; download it again"):
        Wheel.open(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WheelError, match="cut short"):
        Wheel.open(path)
    other = tmp_path / "rknn_toolkit2-2.3.0-cp310-cp310-linux_x86_64.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("rknn_toolkit2-2.3.0.dist-info/METADATA", "Name: rknn-toolkit2\nVersion: 2.3.0\n")
        archive.writestr("rknn_toolkit2-2.3.0.dist-info/WHEEL", "Tag: cp310-cp310-linux_x86_64\n")
    with pytest.raises(WheelError, match="a wheel of rknn-toolkit2, not of rkllm-toolkit"):
        Wheel.open(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(WheelError, match="not a Python wheel"):
        Wheel.open(other)


@pytest.mark.parametrize(("system", "machine"), [("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"),
                                                 ("linux", "armv7l"), ("linux", "riscv64")])  # fmt: skip
def test_other_hosts_are_told_how_people_do_it(system: str, machine: str, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="copy the bundle to the board"):
        install.plan_setup(tmp_path / "none.whl", "", "", "", "", system, machine)


def python(**changes: Any) -> Interpreter:
    facts = {"path": "/x/python", "version": HERE, "full": "3", "machine": "x86_64", "implementation": "cpython",
             "system": "linux", "libc": "glibc", "venv": True}  # fmt: skip
    return Interpreter(**{**facts, **changes})


@pytest.mark.parametrize(("changes", "machine", "said"), [
    ({"version": (3, 9)}, "linux_x86_64", "made for Python"), 
    ({"version": (3, 13)}, "linux_x86_64", "made for Python"),
    ({"libc": ""}, "linux_x86_64", "Debian or Ubuntu"), ({"machine": "aarch64"}, "linux_x86_64", "x86_64 only"),
    ({"implementation": "pypy"}, "linux_x86_64", "needs CPython"), ({"venv": False}, "linux_x86_64", "-venv"),
    ({}, "linux_aarch64", "made for linux_aarch64"), ({}, "macosx_11_0_x86_64", "made for macosx"),
    ({}, "musllinux_1_2_x86_64", "made for musllinux"),
])  # fmt: skip
def test_an_interpreter_that_does_not_fit(
    changes: dict[str, Any], machine: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = Wheel.open(build_wheel(tmp_path, "1.2.3", machine=machine))
    monkeypatch.setattr(interpreter, "ask", lambda path: python(**changes))
    with pytest.raises(HostError, match=said):
        interpreter.find_interpreter(wheel, "/x/python")


@pytest.mark.parametrize("path", ["/nowhere/python", "/bin/true", "/bin/false", "/"])
def test_a_python_that_cannot_be_run(path: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("toolkit", "setup", "--wheel", build_wheel(tmp_path, "1.2.3"), "--no-pins", "--python", path)
    assert (done.code, len(done.stderr.splitlines()), path in done.stderr) == (3, 1, True)


def test_no_python_of_the_wheels_version(
    tmp_path: Path, main: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    for name in ("XDG_DATA_HOME", "UV_PYTHON_INSTALL_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    tag = "cp39" if TAG != "cp39" else "cp310"
    done = main("toolkit", "setup", "--wheel", build_wheel(tmp_path, "1.2.3", tag=tag))
    assert done.code == 3 and "--python" in done.stderr and "uv python install 3." in done.stderr


# Whether each release's packages can be had, by sdk facts; None: as the wheel says.
COMBINATIONS = [
    ("1.1.0", 8, True), ("1.1.4", 8, True), ("1.1.4", 10, True), ("1.2.0", 12, True), ("1.2.1", 9, True),
    ("1.2.1", 12, True), ("1.2.1b1", 10, True), ("1.2.2", 8, False), ("1.2.2", 9, True), ("1.2.2", 12, True),
    ("1.2.3", 8, False), ("1.2.3", 9, True), ("1.2.3", 10, True), ("1.2.3", 12, True), ("1.3.0", 9, False),
    ("1.3.0", 10, True), ("1.3.0", 11, True), ("1.3.0", 12, True), ("1.3.1", 9, False), ("1.3.1", 10, True),
    ("1.1.4", 13, False), ("1.2.1", 13, False), ("1.2.3", 13, False), ("1.3.0", 13, False), ("1.3.1", 14, False),
    ("1.0.1", 8, False), ("1.0.0", 8, False), ("0.9.0", 8, False), ("1.4.0", 10, False), ("2.0.0", 12, False),
]  # fmt: skip


@pytest.mark.parametrize(("version", "minor", "good"), COMBINATIONS)
def test_combinations_that_cannot_work_are_refused(version: str, minor: int, good: bool, tmp_path: Path) -> None:
    wheel = Wheel.open(build_wheel(tmp_path, version, tag=f"cp3{minor}", requires=["numpy (==1.23.1)"]))
    if good:
        assert pins_of(check_release(wheel, own_pins=False), wheel)
        return
    with pytest.raises((WheelError, HostError), match=r"use |--pins"):
        check_release(wheel, own_pins=False)


def test_a_wheel_that_says_nothing_needs_pins(tmp_path: Path) -> None:
    wheel = Wheel.open(build_wheel(tmp_path, "1.1.4"))
    with pytest.raises(WheelError, match="--pins FILE"):
        pins_of(check_release(wheel, own_pins=False), wheel)


def test_a_wheels_own_list(tmp_path: Path) -> None:
    wheel = Wheel.open(build_wheel(tmp_path, "1.1.4", requires=[
        "numpy (==1.23.1)", "torch==2.1.0", "x>=1 ; extra == 'gpu'", "y==2 ; python_version < '3.9'"]))  # fmt: skip
    assert pins_of(check_release(wheel, False), wheel) == (
        "numpy==1.23.1", "torch==2.1.0", "y==2 ; python_version < '3.9'"
    )  # fmt: skip


@pytest.mark.parametrize("glued", ["timm==1.0.19numpy >= 1.23.1,<= 1.26.4", "timm==1.0.19numpy>=1.23.1,<=1.26.4",
                                   "timm==1.0.19Numpy<2"])  # fmt: skip
def test_a_requirements_file_without_a_line_break_is_read_as_meant(glued: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(f"# from the archive\n\nnumpy >= 1.23.1\ntorch==2.6.0  # cpu\n{glued}\ntorch==2.6.0\n")
    pins = read_pins(path)
    assert [name_of(pin) for pin in pins] == ["numpy", "torch", "timm"]
    assert pins[2] == "timm==1.0.19"


@pytest.mark.parametrize("line", ["torch==2.6.0+cpu", "x==1.0.0rc1", "x==1.0.post2", 
                                  "x==2.0b1 ; python_version>'3.9'",
                                  "fla==0.7.202503140658", "--extra-index-url https://x/y==1a>"])  # fmt: skip
def test_a_line_that_is_one_stays_one(line: str, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(line)
    assert read_pins(tmp_path / "r.txt") == (line,)


@pytest.mark.parametrize("release", [r for r in RELEASES if r.pins], ids=lambda r: r.version)
def test_every_table_is_sound(release: Any) -> None:
    names = [name_of(pin) for pin in release.pins]
    assert len(set(names)) == len(names)
    torch, _ = split_torch(release.pins)
    assert torch == ("torch==2.6.0", "torchvision==0.21.0")
    assert "==" in next(p for p in release.pins if p.startswith("transformers=="))


def test_the_order_of_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], str]] = []

    def pip(command: list[str], **facts: Any) -> Any:
        seen.append((command[6:], facts["env"]["BUILD_CUDA_EXT"]))
        return Ended(0, None, ())

    wheel = build_wheel(tmp_path, "1.2.3")
    monkeypatch.setattr(interpreter, "find_interpreter", lambda wheel, given: python())
    plan = install.plan_setup(wheel, "", "", "", "https://mine/whl/cpu", "linux", "x86_64")
    monkeypatch.setattr(install, "run", pip)
    for _, arguments in install._installs(plan, tmp_path):
        install._pip(tmp_path, arguments)
    calls = [call for call, _ in seen]
    assert {flag for _, flag in seen} == {"0"}
    assert calls[0][-4:] == ["--index-url", "https://mine/whl/cpu", "torch==2.6.0", "torchvision==0.21.0"]
    assert LAST in calls[1] and calls[-1][-1] == LAST
    assert "--no-build-isolation" in calls[3] and "auto_gptq==0.7.1" in calls[3]
    assert calls[-2][-3:] == ["--no-index", "--no-deps", str(wheel)]
    assert "https://mine/whl/cpu" in install.announce(plan) and "GB to download" in install.announce(plan)


def test_no_space(tmp_path: Path, home: Path, main: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10_000_000})()
    monkeypatch.setattr(install.shutil, "disk_usage", lambda place: usage)
    done = main("toolkit", "setup", "--wheel", build_wheel(tmp_path, "1.2.3"), "--no-pins")
    assert done.code == 3 and "no space" in done.stderr and not home.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 80, "-x", "a b"])
def test_a_name_that_is_not_plain(name: str) -> None:
    with pytest.raises(homes.EnvironmentFault, match="plain name"):
        homes.place_of(name)


@pytest.mark.parametrize("verb", [("check",), ("check", "x"), ("remove", "x")])
def test_without_a_toolkit_the_way_to_one_is_told(verb: tuple[str, ...], main: Callable[..., Any]) -> None:
    done = main("toolkit", *verb)
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
    assert "toolkit setup" in done.stderr


def test_an_export_without_a_toolkit_says_how_to_get_one(tmp_path: Path, main: Callable[..., Any]) -> None:
    done = main("export", tmp_path, "-o", tmp_path / "b", "--npu", "rkllm")
    assert done.code == 2 and "rk-gemma toolkit setup --wheel" in done.stderr


def test_an_export_on_another_machine_says_where_to_do_it(
    tmp_path: Path, main: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes.platform, "machine", lambda: "aarch64")
    done = main("export", tmp_path, "-o", tmp_path / "b", "--npu", "rkllm")
    assert done.code == 3 and "x86_64 only" in done.stderr and "copy the bundle to the board" in done.stderr


def test_what_a_killed_setup_left_is_taken_away(tmp_path: Path, home: Path) -> None:
    partial = home / ".x.partial"
    (partial / "lib").mkdir(parents=True)
    (partial / "file").write_text("")
    with homes.building(home / "x") as place:
        assert not list(place.iterdir())
    assert [p.name for p in home.iterdir()] == ["x"]


def test_two_setups_of_one_name(home: Path) -> None:
    with homes.building(home / "x") as place:
        with pytest.raises(homes.EnvironmentBusy, match="another setup"), homes.building(home / "x"):
            pass
        assert place.is_dir()


def test_the_driver_is_python_3_8_and_needs_the_standard_library_alone() -> None:
    """It runs under the toolkit's interpreter, which may be that old."""
    source = (Path(interpreter.__file__).parent / "driver.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {str(name).split(".")[0] for name in modules} - {"rkllm"} <= sys.stdlib_module_names
    assert "from __future__ import annotations" in source  # newer types in annotations are never evaluated
