"""Imports point one way (DESIGN section 4): read from the source, so nothing is imported."""

from __future__ import annotations

import ast
import graphlib
from typing import TYPE_CHECKING

import pytest
from runtimekit import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNTIME = ROOT / "runtime" / "rk_gemma_runtime"
FILES = sorted(RUNTIME.rglob("*.py"))
PACKAGES = (RUNTIME, ROOT / "rk_gemma", ROOT / "demo")
IO = {"asyncio", "fcntl", "io", "multiprocessing", "os", "pathlib", "select", "selectors", "shutil", "signal",
      "socket", "subprocess", "sys", "tempfile", "threading"}  # fmt: skip
ABOVE_THE_WIRE = ("server", "service", "cli", "aio", "assistant", "model", "reply", "answer", "turns", "backends",
                  "breaker", "recovery", "loading", "supervisor", "events", "options", "jobs", "stop")  # fmt: skip
# Which rooms each room of the answering line may know. Data flows down this table and never up.
ARROWS: dict[str, set[str]] = {
    "cli": {"assistant", "board", "bundle", "chat", "diagnosis", "doctor", "errors", "events", "jobs", "librkllm",
            "options", "printable", "rkllmfile"},
    "aio": {"assistant", "asyncturns", "answer", "bundle", "chat", "errors", "events", "jobs", "options", "reply",
            "stop", "turns"},
    "asyncturns": {"errors", "stop", "turns"},
    "assistant": {"model", "answer", "bundle", "chat", "errors", "events", "jobs", "options", "reply"},
    "model": {"backends", "answer", "bundle", "chat", "checks", "errors", "events", "jobs", "options", "reply",
              "stop", "turns", "wire"},
    "reply": {"answer", "stop"},
    "answer": {"chat", "events", "jobs"},
    "turns": {"errors", "stop"},
    "backends": {"breaker", "bundle", "errors", "events", "jobs", "loading", "options", "recovery", "stop",
                 "supervisor", "wire"},
    "breaker": {"errors", "events", "options"},
    "recovery": {"stop"},
    "loading": {"supervisor", "board", "bundle", "errors", "events", "memory", "weights"},
    "weights": {"board", "bundle", "errors", "memory", "rkllmfile"},
    "supervisor": {"wire", "board", "children", "diagnosis", "errors", "events", "jobs", "options", "stop"},
    "worker": {"wire", "engines", "errors", "jobs", "stop"},
    "wire": {"errors", "jobs"},
    "engines": {"librkllm", "errors", "jobs", "stop"},
    "librkllm": {"children", "errors"},
    "chat": {"errors", "events"},
    "options": {"board", "checks", "errors", "jobs"},
    "children": {"errors"},
    "driver": {"children", "errors"},
    "rkllmfile": {"errors"},
    "events": set(),
    "jobs": {"checks"},
    "checks": {"errors"},
    "stop": set(),
    "errors": {"printable"},
}  # fmt: skip
# Each for one reason: a kernel's signal when the parent goes, and how libgomp's threads wait.
KNOWS_C = {"worker/life.py", "engines/spinning.py"}


def statements(path: Path, top: Path) -> Iterator[tuple[str, list[str]]]:
    """Every import of a file under `top`, at any depth, also for type checking only: a module, and what is taken
    from it."""
    package = path.relative_to(top).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*above, *filter(None, [node.module])]), [alias.name for alias in node.names]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file of the runtime may import."""
    for base, names in statements(path, RUNTIME.parent):
        yield base
        yield from (f"{base}.{name}" for name in names)


def room(path: Path) -> str:
    first = path.relative_to(RUNTIME).parts[0]
    return first.removesuffix(".py")


def reaches(path: Path, *modules: str) -> list[str]:
    """Imports of `path` that are one of `modules` or inside one."""
    return [i for i in imports(path) if any(i == m or i.startswith(f"{m}.") for m in modules)]


def module(path: Path, top: Path) -> str:
    """The name that a file is imported by; a package stands for its __init__.py."""
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(*packages: Path) -> dict[str, set[str]]:
    """What each module of these packages imports of them. To take a module from a package needs the module only."""
    files = {module(path, package.parent): (path, package.parent) for package in packages
             for path in package.rglob("*.py")}  # fmt: skip
    edges: dict[str, set[str]] = {name: set() for name in files}
    for name, (path, top) in files.items():
        for base, taken in statements(path, top):
            inside = {f"{base}.{word}" for word in taken}
            edges[name] |= inside & files.keys()
            if not inside or inside - files.keys():
                edges[name].add(base)
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, in order, the first again at the end; [] if there are none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def label(path: Path) -> str:
    return str(path.relative_to(RUNTIME))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_the_runtime_never_imports_the_host(path: Path) -> None:
    assert reaches(path, "rk_gemma") == []


def rooms_known(name: str) -> set[str]:
    """The other rooms of the runtime that a room imports from."""
    names = {room(path) for path in FILES}
    found = {i.split(".")[1] for path in FILES if room(path) == name for i in imports(path)
             if i.startswith("rk_gemma_runtime.")}  # fmt: skip
    return (found & names) - {name}


@pytest.mark.parametrize("name", ARROWS)
def test_arrows_point_one_way(name: str) -> None:
    assert rooms_known(name) - ARROWS[name] == set()


def test_every_room_of_the_answering_line_is_in_the_table() -> None:
    apart = {"__init__", "board", "bundle", "diagnosis", "doctor", "memory", "files", "plainyaml", "printable"}
    assert {room(path) for path in FILES} - ARROWS.keys() <= apart
    assert rooms_known("model") >= {"backends", "turns"}  # the table is read against something


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in ABOVE_THE_WIRE], ids=label)
def test_above_the_wire_no_engine_is_known(path: Path) -> None:
    # Identifying a library loads nothing here: what has to be loaded is loaded by a process of its own.
    binding = [] if path == RUNTIME / "cli" / "lib.py" else ["rk_gemma_runtime.librkllm"]
    assert reaches(path, *binding, "rk_gemma_runtime.engines", "rk_gemma_runtime.worker", "xllamacpp") == []


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in {"aio", "assistant", "reply", "cli"}], ids=label)
def test_above_the_model_no_backend_is_known(path: Path) -> None:
    below = ("backends", "breaker", "recovery", "loading", "supervisor", "wire")
    assert reaches(path, *(f"rk_gemma_runtime.{name}" for name in below)) == []


def test_the_verb_that_identifies_reaches_nothing_else() -> None:
    found = reaches(RUNTIME / "cli" / "lib.py", "rk_gemma_runtime.librkllm")
    allowed = ("rk_gemma_runtime.librkllm.identify", "rk_gemma_runtime.librkllm.library")
    assert [i for i in found if not i.startswith(allowed)] == []


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in {"librkllm", "driver"}], ids=label)
def test_only_the_binding_and_the_drivers_room_know_c(path: Path) -> None:
    assert label(path) in KNOWS_C or reaches(path, "ctypes", "cffi", "fcntl") == []


@pytest.mark.parametrize("path", [p for p in FILES if room(p) != "driver"], ids=label)
def test_the_driver_is_asked_through_a_process_of_its_own(path: Path) -> None:
    asking = "rk_gemma_runtime.driver.ask"
    assert [i for i in reaches(path, "rk_gemma_runtime.driver") if i not in {"rk_gemma_runtime.driver", asking}] == []


def test_the_drivers_room_knows_no_other() -> None:
    for path in (p for p in FILES if room(p) == "driver"):
        own = "rk_gemma_runtime.driver" if path.name != "ask.py" else (
            "rk_gemma_runtime.driver", "rk_gemma_runtime.children", "rk_gemma_runtime.errors"
        )  # fmt: skip
        known = {i for i in reaches(path, "rk_gemma_runtime") if i != "rk_gemma_runtime"}
        assert [i for i in known if not i.startswith(own)] == [], path
    # The side that asks loads neither.
    assert reaches(RUNTIME / "driver" / "ask.py", "ctypes", "fcntl", "rk_gemma_runtime.driver") == []


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "doctor"], ids=label)
def test_the_doctor_knows_files_and_no_engine(path: Path) -> None:
    binding = [] if path.name == "libraries.py" else ["rk_gemma_runtime.librkllm"]
    assert reaches(path, *binding, "rk_gemma_runtime.worker", "rk_gemma_runtime.engines", "xllamacpp") == []


@pytest.mark.parametrize("path", sorted((RUNTIME / "doctor" / "checks").glob("*.py")), ids=label)
def test_a_check_reads_nothing(path: Path) -> None:
    assert {i.split(".")[0] for i in imports(path)} & IO == set()


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "memory"], ids=label)
def test_the_memory_model_calculates_only(path: Path) -> None:
    assert {i.split(".")[0] for i in imports(path)} & IO == set()
    allowed = ("memory", "board", "errors", "bundle")
    known = tuple(f"rk_gemma_runtime.{name}" for name in allowed)
    assert [i for i in reaches(path, "rk_gemma_runtime") if not i.startswith(known)] == []


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "diagnosis"], ids=label)
def test_the_rule_book_knows_boards_and_nothing_else(path: Path) -> None:
    known = ("rk_gemma_runtime.diagnosis", "rk_gemma_runtime.board")
    assert [i for i in reaches(path, "rk_gemma_runtime") if not i.startswith(known)] == []


def test_the_binding_knows_no_more_than_errors() -> None:
    for path in (p for p in FILES if room(p) == "librkllm"):
        others = [i for i in reaches(path, "rk_gemma_runtime")
                  if not i.startswith(("rk_gemma_runtime.librkllm", "rk_gemma_runtime.errors"))]  # fmt: skip
        assert path.name == "trial.py" or others == [], path  # which starts a Python


def test_declarations_declare_only() -> None:
    for path in (RUNTIME / "librkllm" / "abi").glob("*.py"):
        outside = {i.split(".")[0] for i in imports(path)} - {
            "__future__", "ctypes", "dataclasses", "enum", "typing", "rk_gemma_runtime",
        }  # fmt: skip
        assert outside == set(), path


@pytest.mark.parametrize(
    "name",
    [
        "wire.py",
        "errors.py",
        "answer.py",
        "jobs.py",
        "options.py",
        "events.py",
        "engines/base.py",
        "chat/template.py",
        "chat/conversation.py",
    ],
)
def test_what_is_without_io_imports_none(name: str) -> None:
    assert {i.split(".")[0] for i in imports(RUNTIME / name)} & IO == set()


def test_engines_know_ids_and_not_text() -> None:
    for path in (p for p in FILES if room(p) == "engines"):
        assert reaches(path, "rk_gemma_runtime.chat", "sentencepiece", "rk_gemma_runtime.wire") == [], path


def test_no_module_imports_itself_by_a_detour() -> None:
    assert " -> ".join(circle(graph(*PACKAGES))) == ""


@pytest.mark.parametrize("back", [
    "from house import a", "from house.a import x", "import house.a", "from .a import x", "from . import a",
    "def late():\n    from house.a import x",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.a import x", "from house import b",
])  # fmt: skip
def test_a_circle_is_found(tmp_path: Path, back: str) -> None:
    house = tmp_path / "house"
    house.mkdir()
    for name, text in {
        "__init__": "",
        "a": "import os\nfrom house.b import y",
        "b": "import house.c",
        "c": "",
    }.items():
        (house / f"{name}.py").write_text(text)
    assert circle(graph(house)) == []
    (house / "c.py").write_text(back)
    assert {"house.b", "house.c"} <= set(circle(graph(house)))


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    assert "rk_gemma_runtime.engines.npu.NpuEngine" in set(imports(RUNTIME / "worker" / "engine.py"))
    assert "rk_gemma_runtime.wire" in set(imports(RUNTIME / "worker" / "loop.py"))
