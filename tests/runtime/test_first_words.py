"""`invalid magic characters`: what lay there in place of an `.rkllm`, from the four bytes that old runtimes print."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from rk_gemma_runtime.diagnosis import examine

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtimekit import Cli

    from rk_gemma_runtime.diagnosis import Diagnosis

LINE = b"gguf_init_from_file: invalid magic characters '%s'"
# What the file is, what the library prints of it, and what the diagnosis says.
ROWS = [
    ("zeros", "9da9e670", "zeros"),
    ("vers", "ebcc9403", "git-LFS pointer"),
    ("<!DO", "a188a23f", "web page"),
    ("<!do", "a188821f", "web page"),
    ("<htm", "a1c1921d", "web page"),
    ('{"er', "e68b8302", "JSON"),
    ("Entr", "d8c79202", "error message"),
    ("Repo", "cfcc961f", "error message"),
    ("Inva", "d4c79011", "error message"),
    ("Acce", "dcca8515", "error message"),
    ("GGUF", "daeeb336", "GGUF"),
    ("RKNN", "cfe2a83e", ".rknn"),
    ("zip", "cde2e574", "archive"),
]


def diagnose(*lines: bytes) -> Diagnosis:
    return examine([b"\n".join(lines)]).diagnosis


def caret(data: bytes) -> bytes:
    """As `cat -v` shows bytes."""
    out = ""
    for byte in data:
        low = byte & 0x7F
        shown = f"^{chr(low ^ 0x40)}" if low < 32 or low == 127 else chr(low)
        out += f"M-{shown}" if byte >= 128 else shown
    return out.encode()


def terminal(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode()


def without_controls(data: bytes) -> bytes:
    return re.sub(rb"[\x00-\x1f]", b"", terminal(data))


def per_byte(data: bytes) -> bytes:
    return re.sub("[\ud800-\udfff]", "\ufffd", data.decode("utf-8", "surrogateescape")).encode()


def pager(data: bytes) -> bytes:
    """As `less` shows them: what is not UTF-8 in brackets, controls with a caret."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(
        f"<{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else f"^{chr(ord(c) + 64)}" if ord(c) < 32 else c
        for c in text
    ).encode()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "terminal": terminal,
    "without controls": without_controls,
    "blanks": lambda data: re.sub(rb"[\x00-\x1f]", b" ", terminal(data)),
    "a sign a byte": per_byte,
    "cat -v": caret,
    "less": pager,
    "hex escapes": lambda data: "".join(f"\\x{byte:02x}" for byte in data).encode(),
    "repr": lambda data: repr(data)[2:-1].encode(),
    "octal": lambda data: "".join(f"\\{byte:03o}" for byte in data).encode(),
    "rsyslog": lambda data: "".join(f"#{byte:03o}" for byte in data).encode(),
    "syslog's controls": lambda data: re.sub(rb"[\x00-\x1f]", lambda found: b"#%03o" % found[0][0], terminal(data)),
    "json": lambda data: json.dumps(data.decode("utf-8", "replace"))[1:-1].encode(),
    "latin-1": lambda data: data.decode("latin-1").encode(),
}
FRAMES = (
    "{}", "Dec  1 10:00:00 rock chat[812]: {}", '{{"log":"{}\\n","stream":"stderr"}}', "> `{}`",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "printed", "said"), ROWS, ids=[row[0] for row in ROWS])
def test_every_wrong_first_word_is_named(name: str, printed: str, said: str, form: str) -> None:
    line = LINE % FORMS[form](bytes.fromhex(printed))
    for frame in FRAMES:
        before, after = frame.format("\0").encode().split(b"\0")
        found = diagnose(b"I rkllm: rkllm-runtime version: 1.1.4", before + line + after)
        assert found.cause == "model_magic_mismatch", (name, frame)
        assert said in found.first.explanation, (name, frame, found.first)
        assert "\0" not in found.first.evidence[0].text and "got" not in found.first.evidence[0].text


@pytest.mark.parametrize("word", ["12345678", "ffffffff", "00000001"])
@pytest.mark.parametrize("form", ["raw", "cat -v", "hex escapes"])
def test_another_word_is_not_guessed_at(word: str, form: str) -> None:
    found = diagnose(LINE % FORMS[form](bytes.fromhex(word)))
    assert (found.cause, found.first.rule) == ("model_magic_mismatch", "magic")
    assert "rk-gemma inspect FILE.rkllm" in found.remedy


@pytest.mark.parametrize("rest", [b"", b"'", b"''", b"'\xff", b"\\x", b"'M-", b"'^", b"\\u00", b"'" * 80, b"<zz>"])
def test_what_is_cut_off_does_no_harm(rest: bytes) -> None:
    assert diagnose(b"gguf_init_from_file: invalid magic characters " + rest).cause == "model_magic_mismatch"


def test_newer_runtimes_say_less_and_the_kinds_are_listed(cli: Cli) -> None:
    done = cli("explain", "-", stdin="E rkllm: invalid rkllm model!\n")
    words = " ".join(done.stdout.split())
    assert "model_magic_mismatch" in words and "rk-gemma inspect FILE.rkllm" in words
    for kind in ("git-LFS pointer", "web page", "error message", "zeros", "GGUF", ".rknn", "archive", "cut short"):
        assert kind in words


@pytest.mark.parametrize(("name", "printed", "said"), [ROWS[1], ROWS[5]], ids=["vers", "json"])
def test_the_command_takes_the_bytes_as_they_are(cli: Cli, name: str, printed: str, said: str) -> None:
    done = cli("explain", "-", stdin=LINE % bytes.fromhex(printed) + b"\n")
    assert said in " ".join(done.stdout.split()), name
