"""`rk-gemma tokens`: what the model will really read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from runtimekit import jsonl, one_line, patient

if TYPE_CHECKING:
    from pathlib import Path

    from runtimekit import Cli

pytestmark = pytest.mark.slow  # each starts programs


def chat_case(number: int) -> dict[str, object]:
    return next(c for c in jsonl("golden_chat.jsonl") if c["n"] == number)


@pytest.mark.parametrize("number", [1, 14])
def test_text_as_json(number: int, cli: Cli, gemma_tokenizer: Path) -> None:
    record = next(r for r in jsonl("golden_hostile.jsonl") if r["n"] == number)
    done = cli(
        "tokens", "--tokenizer", gemma_tokenizer, "--text", record["text"], "--json", timeout=patient(60)
    )  # fmt: skip
    tree = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tree["ids"], tree["count"]) == (record["safe_ids"], len(record["safe_ids"]))
    assert len(tree["pieces"]) == tree["count"]


@pytest.mark.parametrize("number", [37, 57])
def test_a_conversation_from_a_file_and_from_stdin(
    number: int, cli: Cli, gemma_tokenizer: Path, tmp_path: Path
) -> None:
    case = chat_case(number)
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(case), encoding="utf-8")
    base = ("tokens", "--tokenizer", gemma_tokenizer, "--json", "--chat")
    for done in (cli(*base, path), cli(*base, "-", stdin=json.dumps(case))):
        tree = json.loads(done.stdout)
        assert (tree["prompt"], tree["ids"]) == (case["prompt"], case["safe_ids"])


def test_for_reading_control_ids_are_named(cli: Cli, gemma_tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(chat_case(57)["messages"]), encoding="utf-8")
    done = cli("tokens", "--tokenizer", gemma_tokenizer, "--chat", path)
    controls = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("control")]
    assert controls == ["2", "106", "107", "106"]


def test_strict_refuses_with_one_line(cli: Cli, gemma_tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(chat_case(41)["messages"]), encoding="utf-8")
    lenient = cli("tokens", "--tokenizer", gemma_tokenizer, "--chat", path)
    strict = cli("tokens", "--tokenizer", gemma_tokenizer, "--chat", path, "--strict")
    assert lenient.returncode == 0
    assert (strict.returncode, strict.stdout) == (3, "")
    assert "System role not supported" in one_line(strict.stderr)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--text", "a"), 2),
        (("--tokenizer", "absent.model", "--text", "a"), 3),
        (("--tokenizer", "{tokenizer}"), 2),
        (("--tokenizer", "{tokenizer}", "--text", "a", "--chat", "-"), 2),
        (("--tokenizer", "{tokenizer}", "--chat", "-"), 3),
        (("absent-bundle", "--text", "a"), 3),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], code: int, cli: Cli, gemma_tokenizer: Path) -> None:
    done = cli("tokens", *(a.format(tokenizer=gemma_tokenizer) for a in arguments), stdin=b"\xff[")
    assert (done.returncode, done.stdout) == (code, "")
    one_line(done.stderr)
