"""Bad input to `rk-gemma run`: one line, its exit code, nothing on stdout, nothing left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from runtimekit import one_line, patient, scratch_left

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtimekit import Cli

pytestmark = pytest.mark.board

LONG = ",".join(["5"] * 128)
IDS_ONLY = {
    "unknown id": (["--ids", "2,512"], 3, "512"),
    "negative id": (["--ids", "2,-1"], 3, "-1"),
    "as long as the context": (["--ids", LONG], 3, "context"),
    "ids that are none": (["--ids", "2,a"], 2, "--ids"),
    "ids with a hole": (["--ids", "2,,3"], 2, "--ids"),
    "text for an ids-only bundle": (["Hi"], 2, "tokenizer"),
    "context over the model's": (["--ids", "2", "--context", "100000"], 2, "context"),
    "no such backend": (["--ids", "2", "--backend", "gpu"], 2, "backend"),
    "no answer wanted": (["--ids", "2", "--max-tokens", "0"], 2, "max-tokens"),
    "no such option": (["--frobnicate"], 2, "frobnicate"),
    "temperature below zero": (["--ids", "2", "--temperature", "-1"], 2, "temperature"),
    "a limit that is unknown": (
        ["--ids", "2", "--limit", "tokens_s=5"],
        2,
        "unknown limit 'tokens_s'; choose load_s",
    ),
    "a limit that is not a number": (["--ids", "2", "--limit", "token_s=soon"], 2, "NAME=SECONDS"),
    "a limit below zero": (["--ids", "2", "--limit", "token_s=-1"], 2, "token_s"),
    "an id that is no 32 bits": (["--ids", "99999999999999999999"], 3, "vocabulary"),
}


@pytest.mark.parametrize("name", IDS_ONLY)
def test_ids(name: str, tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]], scratch: Path) -> None:
    arguments, code, words = IDS_ONLY[name]
    done = cli("run", tiny_bundle, *arguments, env=board(), timeout=patient(60))
    assert (done.returncode, done.stdout) == (code, "")
    assert words in one_line(done.stderr)
    assert scratch_left(scratch) == []


@pytest.mark.parametrize("name", ["unknown id", "as long as the context"])
def test_what_is_wrong_is_said_before_anything_is_loaded(
    name: str, tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]]
) -> None:
    arguments, code, words = IDS_ONLY[name]
    done = cli("run", tiny_bundle, *arguments, env=board(init="hang"), timeout=patient(60))
    assert (done.returncode, done.stdout) == (code, "")
    assert words in one_line(done.stderr)


TEXT: dict[str, tuple[list[str], bytes, int, str]] = {
    "empty": ([""], b"", 3, "empty"),
    "blank": ([" \n\t"], b"", 3, "empty"),
    "empty stdin": ([], b"", 3, "empty"),
    "blank stdin": (["-"], b" \n \n", 3, "empty"),
    "stdin is no UTF-8": ([], b"gr\xfc\xdf", 3, "UTF-8"),
    "half a character at the end": ([], "gr\u00fc".encode()[:-1], 3, "UTF-8"),
    "longer than the context": ([], b"word " * 3000, 3, "context"),
    "an argument that is no UTF-8": (["a\udcffb"], b"", 3, "Unicode"),
}


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "auto") for name in TEXT), ("empty", "cpu"), ("longer than the context", "cpu")]
)
def test_text(
    name: str, backend: str, demo_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]], scratch: Path
) -> None:
    arguments, stdin, code, words = TEXT[name]
    done = cli("run", demo_bundle, *arguments, "--backend", backend, stdin=stdin, env=board(), timeout=patient(60))
    assert (done.returncode, done.stdout) == (code, "")
    assert words in one_line(done.stderr)
    assert scratch_left(scratch) == []


@pytest.mark.parametrize("verb", ["run", "chat"])
def test_what_is_no_bundle(verb: str, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty", "absent"):
        done = cli(verb, tmp_path / name, stdin="Hi\n", timeout=patient(60))
        assert (done.returncode, done.stdout) == (3, "")
        assert name in one_line(done.stderr)


def test_no_verb_and_a_wrong_verb_are_usage(cli: Cli) -> None:
    for arguments in ((), ("frobnicate",), ("run",), ("chat",)):
        done = cli(*arguments, timeout=patient(60))
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


def test_the_prompt_that_just_fits_is_answered(
    tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]]
) -> None:
    ids = ",".join(["5"] * 127)
    for backend in ("npu", "cpu"):
        done = cli(
            "run",
            tiny_bundle,
            "--ids",
            ids,
            "--temperature",
            0,
            "--backend",
            backend,
            env=board(),
            timeout=patient(60),
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.split(",")) == 1


def test_debug_shows_the_traceback_and_the_librarys_lines(
    tiny_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]]
) -> None:
    done = cli(
        "--debug", "run", tiny_bundle, "--ids", "2,5", "--backend", "npu", env=board(init="iova"), timeout=patient(60)
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "failed to allocate handle, ret: -1, errno: 14" in done.stderr
