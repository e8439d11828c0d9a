"""Model cards: what they claim, and that a hostile one costs no time."""

from __future__ import annotations

import time

import pytest

from rk_gemma.parts.card import LIMIT, read_card

HOSTILE = {
    "a fence and lines": ("---", "\n"), "a fence and blanks": ("---", " "), "a fence and tabs": ("---", "\t\n"),
    "an open fence": ("---\na: b", "\n--- "), "fences": ("---\n", "\n---x"), "a front of lines": ("---\n", "a: b\n"),
    "a closed front": ("---\n" + "a: b\n" * 200_000 + "---\n", ""),
    "toolkit and blanks": ("rkllm-toolkit", " "), "toolkit and lines": ("rkllm-toolkit", "\n"),
    "toolkit and marks": ("rkllm-toolkit", "*:` "), "toolkits": ("", "rkllm-toolkit "),
    "toolkit version": ("rkllm-toolkit version", " "), "runtime": ("rkllm runtime", " "),
    "compatible": ("compatible with rkllm version", " "), "compatible v.": ("compatible with rkllm version v.", " "),
    "converted": ("converted with rkllm", " "), "converted v": ("converted using the rkllm-toolkit v", "\t"),
    "in brackets": ("(rkllm v", " "), "a long beta": ("rkllm-toolkit 1.1.1b", "1"),
    "many dots": ("rkllm-toolkit 1.1.1", ".1"), "blanks": ("", " "),
    "a beta again": ("", "rkllm-toolkit 1.1.1b11111"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("end", ["", ".1", "x\n---\n"])
def test_a_megabyte_of_anything_is_read_at_once(name: str, end: str) -> None:
    start, again = HOSTILE[name]
    card = start + again * ((LIMIT - len(start) - len(end)) // max(1, len(again))) + end
    before = time.process_time()
    read_card(card)
    assert time.process_time() - before < 5  # they take hundredths, and took minutes or an hour


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("compatible with RKLLM version: 1.1.4", "1.1.4"), ("Compatible with rkllm version 1.2.1b1", "1.2.1b1"),
        ("rkllm-toolkit: `1.2.3`", "1.2.3"), ("**RKLLM-Toolkit version:** v1.1.2", "1.1.2"),
        ("rkllm_toolkit v. 1.1.1", "1.1.1"), ("converted with the rkllm-toolkit v1.1.4", "1.1.4"),
        ("converted using rkllm 1.3.0.", "1.3.0"), ("(RKLLM v1.1.4)", "1.1.4"),
        ("RKLLM Runtime version: 1.2.0", "1.2.0"),
        ("rkllm-toolkit 1.1.4.5", ""), ("rkllm-toolkit 1.1.45", ""), ("rkllm-toolkit", ""),
    ],
)  # fmt: skip
def test_the_toolkit_of_a_card(said: str, version: str) -> None:
    assert read_card(f"# A model\n\n{said}\n").toolkit == version


@pytest.mark.parametrize("fence", ["---", "--- ", "---\t"])
@pytest.mark.parametrize("lines", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_front_matter(fence: str, lines: str, mark: str) -> None:
    text = lines.join([f"{mark}{fence}", "base_model: google/gemma-2-2b-it", "license: gemma", fence, "words"])
    card = read_card(text)
    assert (card.base, card.licence, card.gated) == ("google/gemma-2-2b-it", "gemma", False)
