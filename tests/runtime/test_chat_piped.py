"""`rk-gemma chat` with a pipe on stdin: one message a line, answers on stdout, talk on stderr."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from runtimekit import one_line, patient, scratch_left, without_cuts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from runtimekit import Cli

    Chat = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.board


@pytest.fixture
def chat(demo_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]], tmp_path: Path) -> Chat:
    """chat(stdin, *options): a conversation of short greedy answers."""
    home = {"XDG_STATE_HOME": str(tmp_path / "state")}

    def talk(stdin: str | bytes, *options: object, **keys: object) -> CompletedProcess[str]:
        return cli(
            "chat", demo_bundle, "--temperature", 0, "--max-tokens", 8, *options,
            stdin=stdin, env=board(**keys) | home, timeout=patient(60),
        )  # fmt: skip

    return talk


def said(done: CompletedProcess[str]) -> list[str]:
    return [line.removeprefix("rk-gemma: ") for line in done.stderr.splitlines()]


def test_several_lines_are_several_messages(
    chat: Chat, demo_bundle: Path, cli: Cli, board: Callable[..., dict[str, str]]
) -> None:
    done = chat("What is the NPU?\n\n  \nWhat is a bundle?\n/stats\n")
    assert done.returncode == 0
    stats = said(done)[-1]
    assert stats.startswith("npu: ")
    assert "from the cache" in stats
    alone = cli(
        "run",
        demo_bundle,
        "What is the NPU?",
        "--temperature",
        0,
        "--max-tokens",
        8,
        env=board(),
        timeout=patient(60),
    )
    assert done.stdout.startswith(alone.stdout)
    assert len(done.stdout) > len(alone.stdout)


def test_no_input_is_no_answer(chat: Chat, tmp_path: Path) -> None:
    for stdin in ("", "\n\n", "/quit\nHi\n", "/exit\n"):
        done = chat(stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "state").exists()


def test_the_last_line_needs_no_newline(chat: Chat) -> None:
    assert chat("Hi").stdout == chat("Hi\r\n").stdout != ""


def test_every_command(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    done = chat(
        f"/help\n/stats\nHi\n/save {saved}\n/reset\n/system Be brief.\n/load {saved}\n/system Be kind.\n"
        "/system\n/system -\n/backend\n/backend cpu\nHi\n/stats\n/backend auto\n/quit\n"
    )
    assert done.returncode == 0
    talk = done.stderr
    for word in ("/reset", "/system", "/backend", "/stats", "/save", "/load", "/help", "/quit"):
        assert word in talk
    lines = said(done)
    count = len(json.loads(saved.read_text()))
    for line in (
        "no answer yet",
        f"{count} messages saved to {saved}",
        "a new conversation",
        "system message set",
        "system message: Be kind.",
        f"{count} messages loaded from {saved}",
        "system message removed",
        "answers come from the NPU",
        "answers come from the CPU",
    ):
        assert line in lines
    assert lines[-1] == "answers come from the NPU"
    assert sum(line.startswith("cpu: ") for line in lines) == 1


def test_a_saved_conversation_goes_on_as_if_it_had_not_stopped(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    whole = chat(f"What is the NPU?\n/save {saved}\nAnd what is a bundle?\n")
    turns = json.loads(saved.read_text())
    assert turns[0] == {"role": "user", "content": "What is the NPU?"}
    later = chat(f"/load {saved}\nAnd what is a bundle?\n")
    assert later.stdout != ""
    assert whole.stdout.endswith(later.stdout)


def test_reset_forgets_and_keeps_the_system_message(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    chat(f"Hi\n/reset\n/save {saved}\n", "--system", "Be brief.")
    assert json.loads(saved.read_text()) == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    "line",
    ["/nonsense", "/backend gpu", "/save", "/load", "/save /no/where", "/load /no", "/load {list}", "/load {number}"],
)
def test_a_bad_command_is_one_line_and_the_talk_goes_on_or_ends_with_a_code(
    line: str, chat: Chat, tmp_path: Path
) -> None:
    files = {"list": tmp_path / "list.json", "number": tmp_path / "number.json"}
    files["list"].write_text('[{"role": "user"}]')
    files["number"].write_text("5")
    done = chat(line.format(**files) + "\n")
    assert one_line(done.stderr).startswith("rk-gemma: error: ")
    assert done.returncode in {2, 3}
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_the_npu_refuses_and_the_talk_goes_on(chat: Chat, scratch: Path) -> None:
    done = chat("Hi\nWhat is the NPU?\n", init="iova")
    assert done.returncode == 0
    assert done.stdout.count("\n") >= 2
    assert "failed to malloc" in one_line(without_cuts(done.stderr))
    assert scratch_left(scratch) == []


@pytest.mark.parametrize(
    ("stdin", "words"),
    [(b"word " * 3000 + b"\n", "context"), (b"gr\xfc\xdf\n", "UTF-8"), (b"Hi\n\xff\xfe\n", "UTF-8")],
    ids=["long", "latin-1", "later"],
)
def test_bad_input_is_one_line_and_exit_code_3(stdin: bytes, words: str, chat: Chat, scratch: Path) -> None:
    done = chat(stdin, "--backend", "cpu")
    assert done.returncode == 3
    assert words in one_line(without_cuts(done.stderr))
    assert scratch_left(scratch) == []


def test_a_reader_that_leaves_is_no_traceback(
    demo_bundle: Path, spawn: Callable[..., object], board: Callable[..., dict[str, str]]
) -> None:
    read, write = os.pipe()
    os.close(read)
    child = spawn("run", demo_bundle, "Hi", "--max-tokens", 20, env=board(), stdout=write)
    os.close(write)
    _, err = child.communicate(timeout=patient(30))  # type: ignore[attr-defined]
    assert child.returncode == 1  # type: ignore[attr-defined]
    assert err == b""


def test_the_first_error_is_the_exit_code_and_the_rest_is_answered(chat: Chat) -> None:
    done = chat("/foo\nHi\n", "--backend", "cpu")
    assert done.returncode == 2
    assert done.stdout == chat("Hi\n", "--backend", "cpu").stdout


def test_a_backslash_joins_lines(chat: Chat, tmp_path: Path) -> None:
    chat(f"one \\\ntwo\n/save {tmp_path / 'talk.json'}\n", "--backend", "cpu")
    assert json.loads((tmp_path / "talk.json").read_text())[0]["content"] == "one \ntwo"


def test_save_keeps_devices_links_and_modes(chat: Chat, tmp_path: Path) -> None:
    """What /save is pointed at is written to, never replaced by something else."""
    fifo, real, link = tmp_path / "fifo", tmp_path / "real.json", tmp_path / "link.json"
    os.mkfifo(fifo)
    real.write_text("[]")
    real.chmod(0o640)
    link.symlink_to(real)
    done = chat(f"Hi\n/save {fifo}\n/save {link}\n/save {tmp_path / 'new.json'}\n", "--backend", "cpu")
    assert done.returncode == 2
    assert fifo.is_fifo()
    assert link.is_symlink()
    assert len(json.loads(real.read_text())) == 2
    assert real.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", ['[{"role": "user", "content": "old"}]', "notes of mine", "\x00\x01", " \n x"])
def test_save_does_not_write_over_what_is_not_its_own(there: str, chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_text(there)
    done = chat(f"/save {file}\n", "--backend", "cpu")
    assert (done.returncode, file.read_text()) == (2, there)
    assert f"exists; /save! {file} writes over it" in done.stderr
    link = tmp_path / "link"
    link.symlink_to(file)
    assert chat(f"/save {link}\n", "--backend", "cpu").returncode == 2
    assert file.read_text() == there
    done = chat(f"/save! {file}\n", "--backend", "cpu")
    assert (done.returncode, json.loads(file.read_text())) == (0, [])
    assert "in place of what it held" in done.stderr


@pytest.mark.parametrize("there", ["", "[]", "[]\n"])
def test_save_takes_a_file_with_nothing_in_it(there: str, chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.write_text(there)
    assert chat(f"/system Be brief.\n/save {file}\n", "--backend", "cpu").returncode == 0
    assert len(json.loads(file.read_text())) == 1


def test_a_conversation_is_saved_again_where_it_was(chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    asked = f"/system Be brief.\n/save {file}\n/system Be kind.\n/save {file}\n"
    assert chat(asked, "--backend", "cpu").returncode == 0
    assert "kind" in file.read_text()
    asked = f"/load {file}\n/system Be short.\n/save {file}\n"
    done = chat(asked, "--backend", "cpu")
    assert done.returncode == 0 and "short" in file.read_text(), done.stderr


def test_a_long_talk_says_once_what_is_no_longer_sent(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    done = chat("What is the NPU?\n" * 12 + f"/save {saved}\n", "--backend", "cpu", "--context", "256")
    assert done.stderr.count("the oldest exchanges are no longer sent") == 1
    assert len(json.loads(saved.read_text())) == 24


def test_a_backend_that_fails_is_not_kept(chat: Chat) -> None:
    done = chat("/backend npu\n/backend\nHi\n", "--backend", "cpu", init="fail")
    assert done.returncode == 4
    assert "answers come from the CPU" in done.stderr
    assert done.stdout != ""
