"""`rk-gemma explain`: what it prints, where, and what it returns."""

from __future__ import annotations

import gzip
import json
import os
import pty
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from diagnosiskit import banner, logs, malloc, refused
from runtimekit import ROOT, one_line, patient

from rk_gemma_runtime.diagnosis import CAUSES
from tests.conftest import CLI, cli_environment

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

    from runtimekit import Cli

pytestmark = pytest.mark.slow  # each starts programs

KEYS = {"cause", "confidence", "evidence", "explanation", "remedy"}
FACTS = {"runtime_version", "toolkit_version", "driver_version", "platform", "model_dtype", "max_context_limit",
         "sizes"}  # fmt: skip
LOG = "\n".join([banner(driver="0.9.6"), refused(14), malloc(3085697024), "Segmentation fault", ""])


def explain(cli: Cli, *arguments: object, **options: Any) -> tuple[int, str, str]:
    done = cli("explain", *arguments, timeout=patient(60), **options)
    return done.returncode, done.stdout, done.stderr


def program(folder: Path, name: str, body: str) -> dict[str, str]:
    """An environment in which `name` is this shell script, and nothing else of that name is found."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": str(folder)}


WORDS = (
    b" NPU rkllm librkllmrt RKNN failed to malloc npu memory model\n"  # as in a vocabulary, or a library's strings
)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"GGUF\x03\0\0\0", "a GGUF model"), (b"\x7fELF\x02\x01", "`rk-gemma lib FILE`"),
        (b"\x89PNG\r\n", "a picture"), (b"\xff\xd8\xff\xe0", "a picture"), (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04", "a zip file"),
        (b'\x10\x02\0\0\0\0\0\0{"__metadata__"', "a safetensors file"),
    ],
)  # fmt: skip
def test_another_file_that_holds_the_words(head: bytes, said: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "file"
    path.write_bytes(head + WORDS * 9)
    code, out, err = explain(cli, path)
    assert (code, out) == (3, "")
    assert err.startswith(f"rk-gemma: error: {path}: not a text log but ") and said in err


def test_words_among_bytes_are_not_a_log(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0\x01\x02\x03" * 999 + b"\nthe NPU of rknpu and librkllmrt\n" + b"\0\x01\x02\x03" * 999)
    code, out, err = explain(cli, path)
    assert (code, out) == (3, "") and "not a text log" in err


def test_a_damaged_log_is_read_all_the_same(tmp_path: Path, cli: Cli) -> None:
    """After a loss of power a log is full of zeros."""
    path = tmp_path / "file"
    path.write_bytes(b"\0" * 999 + f"\n{LOG}\n".encode())
    assert explain(cli, path)[1].startswith("cause       driver_too_old")


def test_lines_fit_a_terminal(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "log"
    path.write_text(LOG)
    lines = explain(cli, path)[1].splitlines()
    assert lines and not [
        line for line in lines if len(line) > 80 and LOG.find(line[-20:]) < 0
    ]  # but those it quotes


@pytest.mark.parametrize("way", ["file", "dash", "pipe"])
def test_for_programs_it_is_one_object(way: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "log"
    path.write_text(LOG)
    arguments = {"file": [path], "dash": ["-"], "pipe": []}[way]
    code, out, talk = explain(cli, *arguments, "--json", stdin="" if way == "file" else LOG)
    assert (code, talk) == (0, "")
    answer = json.loads(out)
    assert set(answer) == {*KEYS, "others", "facts"}
    assert set(answer["facts"]) == FACTS
    assert answer["cause"] == "driver_too_old"
    assert answer["evidence"][:2] == [{"line": 2, "text": refused(14)}, {"line": 3, "text": malloc(3085697024)}]
    assert [set(other) for other in answer["others"]] == [KEYS]
    assert answer["others"][0]["cause"] == "segfault"
    assert answer["facts"]["sizes"] == [3085697024]
    assert answer["facts"]["driver_version"] == "0.9.6"


def test_for_people_it_is_cause_reason_lines_and_remedy(cli: Cli) -> None:
    code, out, talk = explain(cli, "-", stdin=LOG)
    assert (code, talk) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["cause", "driver_too_old", "(95%", "sure)"]
    assert [line.split()[0] for line in lines if line[0] != " "] == ["cause", "why", "line", "do", "facts", "or"]
    assert any(line.startswith("line        2: E RKNN: [10:00:00.000] failed to allocate") for line in lines)
    assert "3085697024 bytes (2.874 GiB)" in " ".join(out.split())
    assert all(len(line) <= 330 for line in lines)


def test_every_report_is_explained_by_the_command(cli: Cli) -> None:
    everything = "\n".join(line for record in logs("reports.jsonl") for line in record["log"])
    code, out, _ = explain(cli, "--json", stdin=everything)
    assert code == 0
    assert {verdict["cause"] for verdict in [json.loads(out), *json.loads(out)["others"]]} <= set(CAUSES)


def test_a_log_of_something_else_is_read(cli: Cli) -> None:
    code, out, _ = explain(cli, "--json", stdin="GET / 200\n")
    answer = json.loads(out)
    assert (code, answer["cause"], answer["confidence"], answer["evidence"]) == (0, "other", 0.0, [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n\n\t\r\n", "only blanks"),
        (os.urandom(1 << 16), "not a text log"),
        (bytes(1 << 16) + b"x", "not a text log"),
        (gzip.compress(LOG.encode()), "zcat FILE"),
        (b"LPKSHHRH" + bytes(range(256)) * 9, "journalctl --file"),
    ],
    ids=["empty", "blanks", "random", "nul", "gzip", "journal"],
)
def test_what_is_no_log_is_one_line(content: bytes, words: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "a\nlog"
    path.write_bytes(content)
    for arguments, stdin in (((path,), b""), (("-",), content)):
        code, out, talk = explain(cli, *arguments, "--json", stdin=stdin)
        assert (code, out) == (3, "")
        assert words in one_line(talk)


def test_a_crash_dump_with_known_lines_is_read(cli: Cli) -> None:
    code, out, _ = explain(cli, "--json", stdin=bytes(range(32)) * 3000 + b"\n" + refused(24).encode() + b"\n\0\0\0")
    assert (code, json.loads(out)["cause"]) == (0, "fd_limit")


def test_what_cannot_be_read_is_one_line(tmp_path: Path, cli: Cli) -> None:
    secret = tmp_path / "secret"
    secret.write_text(LOG)
    secret.chmod(0)
    for path, words in ((tmp_path, "Is a directory"), (tmp_path / "absent", "No such file"), (secret, "denied")):
        if path == secret and os.geteuid() == 0:
            continue  # root reads everything
        code, out, talk = explain(cli, path)
        assert (code, out) == (3, "")
        assert words in one_line(talk)


def test_on_a_terminal_without_a_log_it_says_what_to_do() -> None:
    main, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [*CLI, "explain"], stdin=terminal, capture_output=True, text=True, env=cli_environment(), check=False,
            timeout=patient(60),
        )  # fmt: skip
    finally:
        os.close(main)
        os.close(terminal)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--journal" in one_line(done.stderr)


def test_the_journal_is_asked_for_this_boot(tmp_path: Path, cli: Cli) -> None:
    body = f'[ "$*" = "-b -o short-iso --no-pager" ] || exit 3\necho "2026-11-21T10:00:00+0000 h p[1]: {refused(24)}"'
    code, out, talk = explain(cli, "--journal", "--json", env=program(tmp_path, "journalctl", body))
    assert (code, talk) == (0, "")
    assert json.loads(out)["cause"] == "fd_limit"


def test_sources_are_read_together(tmp_path: Path, cli: Cli) -> None:
    kernel = "[ 1.0] RKNPU fde40000.npu: RKNPU: rknpu iommu is disabled, using non-iommu mode"
    program(tmp_path, "dmesg", f"echo '{kernel}'")
    env = program(tmp_path, "journalctl", f"echo 'Nov 21 10:00:00 h p[1]: {malloc(1 << 28)}'")
    code, out, _ = explain(cli, "-", "--journal", "--dmesg", "--json", env=env, stdin=refused(22) + "\n")
    answer = json.loads(out)
    assert (code, answer["cause"]) == (0, "iommu_disabled")
    assert [evidence["line"] for evidence in answer["evidence"]] == [1, 2, 3]


def test_a_closed_kernel_log_says_what_to_run(tmp_path: Path, cli: Cli) -> None:
    body = "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1"
    code, out, talk = explain(cli, "--dmesg", env=program(tmp_path, "dmesg", body))
    assert (code, out) == (1, "")
    assert "sudo dmesg | rk-gemma explain -" in one_line(talk)


def test_a_missing_or_failing_program_is_one_line(tmp_path: Path, cli: Cli) -> None:
    code, out, talk = explain(cli, "--journal", env={"PATH": str(tmp_path)})
    assert (code, out) == (1, "")
    assert "journalctl: not on this system" in one_line(talk)
    env = program(tmp_path, "journalctl", "echo 'No journal files were found.' >&2; exit 1")
    code, out, talk = explain(cli, "--journal", env=env)
    assert (code, out) == (1, "")
    assert "journalctl failed: No journal files were found." in one_line(talk)


def test_only_own_entries_are_told(tmp_path: Path, cli: Cli) -> None:
    body = f"echo 'Hint: You are currently not seeing messages from other users.' >&2; echo '{refused(24)}'"
    code, out, talk = explain(cli, "--journal", "--json", env=program(tmp_path, "journalctl", body))
    assert (code, json.loads(out)["cause"]) == (0, "fd_limit")
    assert "only your own journal entries" in one_line(talk)


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(LOG)
    with subprocess.Popen(
        [*CLI, "explain", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli_environment()
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()
        assert child.wait(timeout=patient(60)) in {0, 1}


def test_letters_that_the_locale_lacks_are_escaped(cli: Cli) -> None:
    env = {"PYTHONIOENCODING": "ascii"}
    if str(ROOT).isascii():  # else Python cannot read where an editable install lies
        env |= {"LC_ALL": "C", "PYTHONUTF8": "0"}
    code, out, talk = explain(cli, "-", env=env, stdin=f"模型 {refused(24)}\n")
    assert (code, talk) == (0, "")
    assert "\\u6a21" in out


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(lambda text: f"{LOG}{text}".encode())))
def test_any_bytes_end_in_an_answer_or_one_line(cli: Cli, data: bytes) -> None:
    code, out, talk = explain(cli, "-", stdin=data)
    assert code in {0, 3}
    assert "Traceback" not in talk
    assert (code == 0) == bool(out)
    if code == 3:
        one_line(talk)
