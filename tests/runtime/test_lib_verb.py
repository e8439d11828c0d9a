"""`rk-gemma lib`: what it prints, where, and what it returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from librarykit import ELSEWHERE, HERE, SDK, compile_library, elf, renamed, source
from runtimekit import ROOT, one_line, patient

from rk_gemma_runtime.librkllm.abi import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli

KEYS = {
    "path", "version", "layout", "identified_by", "missing", "known_release", "machine", "signals", "conflict",
    "forced", "notes", "second_hand", "problem", "reason",
}  # fmt: skip


def ask(cli: Cli, *arguments: object, **options: Any) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object on stdout, stderr."""
    done = cli("lib", "--json", *arguments, timeout=patient(60), **options)
    answer = json.loads(done.stdout)
    assert set(answer) == KEYS
    return done.returncode, answer, done.stderr


@pytest.mark.board
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_library_that_can_be_used(layout: str, simulator: Callable[[str], Path], cli: Cli) -> None:
    path = simulator(layout)
    code, answer, talk = ask(cli, path)
    assert (code, talk) == (0, "")
    assert (answer["path"], answer["version"], answer["layout"]) == (str(path), layout, layout)
    assert answer["identified_by"] == ["string", "symbols", "defaults"]
    assert [s["name"] for s in answer["signals"]] == ["string", "literal", "blob", "symbols", "defaults"]
    assert (answer["machine"], answer["problem"], answer["forced"]) == (HERE, None, False)
    assert answer["second_hand"] == (layout == "1.3.1")


@pytest.mark.board
def test_for_people_it_is_a_few_aligned_lines(simulator: Callable[[str], Path], cli: Cli) -> None:
    done = cli("lib", simulator("1.3.1"), timeout=patient(60))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 13
    assert {line[10] for line in lines} == {" "}
    assert "layout     1.3.1 (second-hand: its header was not seen)" in lines
    assert "usable     yes" in lines


@pytest.mark.board
def test_without_a_path_it_is_the_one_in_use(simulator: Callable[[str], Path], cli: Cli) -> None:
    code, answer, _ = ask(cli, env={"RK_GEMMA_LIBRKLLMRT": str(simulator("1.2.0"))})
    assert (code, answer["layout"]) == (0, "1.2.0")


@pytest.mark.board
@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_layout_can_be_forced(how: str, simulator: Callable[[str], Path], tmp_path: Path, cli: Cli) -> None:
    path = renamed(simulator("1.3.0"), tmp_path / "new.so", "1.3.0", "1.4.0")
    code, answer, talk = ask(cli, path)
    assert (code, answer["layout"], answer["version"]) == (4, None, "1.4.0")
    assert "librkllmrt 1.4.0 is not known to this rk-gemma" in one_line(talk)
    arguments = ("--layout", "1.3.0") if how == "option" else ()
    code, answer, talk = ask(
        cli, path, *arguments, env={"RK_GEMMA_LIBRKLLMRT_LAYOUT": "1.3.0"} if not arguments else {}
    )
    assert (code, talk) == (0, "")
    assert (answer["layout"], answer["forced"], answer["identified_by"]) == ("1.3.0", True, ["forced"])
    assert answer["notes"] == ["its string says 1.4.0, so none"]


def test_a_layout_that_is_none_is_a_usage_error(tmp_path: Path, cli: Cli) -> None:
    done = cli("lib", tmp_path, "--layout", "7", timeout=patient(60))
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown layout '7'; choose one of 1.1.0" in one_line(done.stderr)


@pytest.mark.board
def test_another_machines_library_is_described_and_not_usable(cli: Cli) -> None:
    path = ROOT / "build" / "simulator" / ELSEWHERE / "1.2.1" / "librkllmrt.so"
    if not path.exists():
        pytest.skip(f"{path} is not built; run: make simulator-arm64")
    code, answer, talk = ask(cli, path)
    assert (code, answer["layout"], answer["machine"], answer["reason"]) == (4, "1.2.1", ELSEWHERE, "bad_library")
    assert f"built for {ELSEWHERE}" in one_line(talk)
    done = cli("lib", path, timeout=patient(60))
    assert done.returncode == 4
    assert "usable     no" in done.stdout


def test_a_contradiction_is_told_once(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "liar.so"
    path.write_bytes(elf(ELSEWHERE, exports=LAYOUTS["1.3.0"].functions, tail=SDK.format("1.2.0").encode()))
    code, answer, talk = ask(cli, path)
    assert code == 4
    assert "its string says 1.2.0, so 1.2.0; it exports" in answer["conflict"]
    assert f"built for {ELSEWHERE}" in one_line(talk)


def test_what_is_no_library_is_one_line_and_an_empty_answer(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "a\nb.so"
    path.write_bytes(b"text")
    code, answer, talk = ask(cli, path)
    assert (code, answer["layout"], answer["reason"]) == (4, None, "bad_library")
    assert "not an ELF file" in answer["problem"]
    assert "not an ELF file" in one_line(talk)
    code, answer, talk = ask(cli, env={"RK_GEMMA_LIBRKLLMRT": str(tmp_path / "absent")})
    assert (code, answer["path"], answer["reason"]) == (4, None, "no_library")


@pytest.mark.slow
@pytest.mark.parametrize("body", ["puts(text);", "puts(text); fflush(stdout); abort();"])
def test_what_the_library_prints_is_not_on_stdout(body: str, tmp_path: Path, cli: Cli) -> None:
    head = "#include <stdio.h>\n#include <stdlib.h>\n"
    begin = f"__attribute__((constructor)) static void begin(void) {{ {body} }}"
    path = compile_library(tmp_path / "loud.so", head + source("1.3.0", "1.3.0", more=begin))
    code, answer, talk = ask(cli, path)
    if "abort" in body:
        assert (code, answer["reason"]) == (4, "bad_library")
        assert "loading it ended with SIGABRT" in one_line(talk)
    else:
        assert (code, answer["layout"], talk) == (0, "1.3.0", "")
