"""Every `rk-gemma ...` that is named anywhere is a command line of this release: its verb, its options, its words.

Rules, messages of the program, help and pages are read; the parser of the command line itself says what it takes.
"""

from __future__ import annotations

import ast
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml
from hosttools import ROOT

from rk_gemma.cli.verbs import whole_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "demo" / "README.md", ROOT / "demo" / "demo.sh"])
CODE = sorted([*ROOT.glob("rk_gemma/**/*.py"), *ROOT.glob("runtime/**/*.py")])
RULES = sorted(ROOT.glob("runtime/**/*.yaml"))
PROFILES = sorted(ROOT.glob("board/profiles/*.yaml"))
NUMBERS = {"X": "1", "N": "1", "GB": "16", "SECONDS": "1", "PORT": "1"}  # what stands for a number in a page
# "rk-gemma" as a noun, before a word that is not a verb of it.
NOUN = re.compile(r"rk-gemma (?:bundle|simulator|starts|right|chooses|with|to|in)\b")
COMMAND = re.compile(r"rk-gemma ((?:--debug )?[a-z]+\b|--[a-z]+)((?:(?! \d?>)[^`\n#|&;])*)")  # not a redirection
# The words of a command outside of backticks: it ends where a sentence goes on.
ARGUMENT = re.compile(r"-[\w-]*|[A-Z][A-Z_.a-z]*|\S*[\d/]\S*|\"[^\"]*\"")


GROUP: Any = typer.main.get_command(whole_app())
VALUED = {
    name for verb in GROUP.commands.values() for option in verb.params
    if not getattr(option, "is_flag", True) for name in option.opts
}  # fmt: skip


def wrong_with(line: str) -> str:
    """What the parser says of a command line without its first word; "" if it takes it."""
    line = re.sub(r"\[[^]]*\]|\.\.\.", lambda found: found[0].strip("[]").partition("=")[0] or "x", line)
    words = [NUMBERS.get(word, word) for word in shlex.split(line)]
    if words[:1] == ["--debug"]:
        words = words[1:]
    if not words or words[0] in {"VERB", "--version", "--help"}:
        return ""
    verb = GROUP.commands.get(words[0])
    if hasattr(verb, "commands"):  # toolkit setup, list ...
        words = words[1:] or ["--help"]
        verb = verb.commands.get(words[0], verb)
    if verb is None:
        return f"no verb {words[0]}"
    # A page may leave out what a command needs; it may not name what a command lacks.
    given, names = words[1:], {name for option in verb.params for name in (*option.opts, *option.secondary_opts)}
    unknown = [word for word in given if word.startswith("--") and word.partition("=")[0] not in {*names, "--help"}]
    if unknown:
        return f"{words[0]} has no {unknown[0]}"
    try:
        verb.make_context(words[0], [word for word in given if word != "--help"])
    except Exception as error:  # the parser's own, whichever package it comes in
        lacks = type(error).__name__ == "MissingParameter" or str(error).endswith("requires an argument.")
        return "" if lacks else str(error)
    return ""


def commands(text: str, fenced: bool = False) -> Iterator[str]:
    """The command lines in a text: up to a backtick or the end of a line, in a sentence as far as its words go."""
    spans = [(found[1], True) for found in re.finditer(r"`([^`\n]+)`", text)]
    spans += [(re.sub(r"`[^`\n]+`", "`", text), fenced)]
    for span, exact in spans:
        for found in COMMAND.finditer(span):
            if not NOUN.match(found[0]):
                yield found[1] + (found[2] if exact else sentence(found[2]))


def sentence(rest: str) -> str:
    kept: list[str] = []
    for word in rest.split():
        bare = word.strip("(),.:'")
        if not ARGUMENT.fullmatch(bare) and not (kept and kept[-1] in VALUED):
            break
        kept.append(bare)
        if bare != word:
            break
    return " ".join(["", *kept])


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a file that a person may read."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    elif path.suffix == ".yaml":
        yield from strings(yaml.safe_load(path.read_text()))
    else:
        yield path.read_text()


def strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from strings({} if key in {"lines", "source"} else value)
    elif isinstance(tree, list):
        for value in tree:
            yield from strings(value)
    elif isinstance(tree, str):
        yield tree


@pytest.mark.parametrize("path", [*PAGES, *CODE, *RULES, *PROFILES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_named_is_one_of_this_release(path: Path) -> None:
    for text in texts_of(path):
        for line in commands(text, fenced=path.suffix in {".md", ".sh"}):
            assert not wrong_with(line), f"rk-gemma {line}: {wrong_with(line)}"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`rk-gemma push gemma-2-2b`", "no verb push"),
        ("or rk-gemma serve BUNDLE", "no verb serve"),
        ("`rk-gemma explain --npu-domain 1`", "explain has no --npu-domain"),
        ("`rk-gemma export SRC -o DIR --cpu Q8_0 --dtyp w8a8`", "export has no --dtyp"),
        ("`rk-gemma plan MODEL --context many`", "Input should be a valid integer"),
        ("`rk-gemma inspect BUNDLE OTHER`", "Got unexpected extra argument"),
        ("rk-gemma doctor --prob measures it", "doctor has no --prob"),
        ("rk-gemma doctor --probe measures it", ""),
        ("see `sudo dmesg | rk-gemma explain -`.", ""),
        ("rk-gemma export SRC -o DIR --cpu Q8_0", ""),
    ],
)
def test_what_is_not_a_command_is_found(text: str, wrong: str) -> None:
    (line,) = commands(text)
    assert wrong_with(line).startswith(wrong) and bool(wrong) == bool(wrong_with(line)), wrong_with(line)
