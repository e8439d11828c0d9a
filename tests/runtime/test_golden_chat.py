"""The chat template and the tokenizer against transformers' own output, and text that tries to be markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from runtimekit import ROOT, jsonl

from rk_gemma_runtime.chat import Message, Tokenizer, render
from rk_gemma_runtime.errors import BundleError, PromptError, TemplateError

if TYPE_CHECKING:
    from pathlib import Path

CHAT = jsonl("golden_chat.jsonl")
CONTROL = {0, 1, 2, 3, 106, 107}
DEMO = ROOT / "demo" / "checkpoint" / "tokenizer.model"


def name(case: dict[str, Any]) -> str:
    return f"{case['n']}-{case.get('cat', '')}"


def ending(case: dict[str, Any]) -> Any:
    if case.get("continue_final_message"):
        return "continue"
    return "answer" if case["add_generation_prompt"] else "close"


@pytest.fixture(scope="module")
def gemma(gemma_tokenizer: Path) -> Tokenizer:
    return Tokenizer.open(gemma_tokenizer)


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    if not DEMO.is_file():
        pytest.skip(f"{DEMO} is not there (demo/train.py writes it)")
    return Tokenizer.open(DEMO)


@pytest.mark.parametrize("case", [c for c in CHAT if "prompt" in c], ids=name)
def test_a_conversation_becomes_the_official_prompt(case: dict[str, Any], gemma: Tokenizer) -> None:
    prompt = render(case["messages"], gemma, end=ending(case), strict=True)
    assert (prompt.text, prompt.ids) == (case["prompt"], case["safe_ids"])


@pytest.mark.parametrize("case", [c for c in CHAT if "prompt" in c and c["cat"] != "quirk"], ids=name)
def test_leniency_changes_nothing_that_the_template_takes(case: dict[str, Any], gemma: Tokenizer) -> None:
    prompt = render(case["messages"], gemma, end=ending(case))
    assert (prompt.text, prompt.ids) == (case["prompt"], case["safe_ids"])


@pytest.mark.parametrize("case", [c for c in CHAT if "error" in c], ids=name)
def test_strict_refuses_in_the_templates_words(case: dict[str, Any], gemma: Tokenizer) -> None:
    with pytest.raises(TemplateError) as caught:
        render(case["messages"], gemma, strict=True)
    assert str(caught.value) == case["error"]["message"]


def test_every_case_was_looked_at() -> None:
    assert all(("prompt" in c) != ("error" in c) for c in CHAT)
    assert {"continue", "hostile", "error", "quirk"} <= {c["cat"] for c in CHAT}


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"content": "a"}], [{"role": "user", "content": [1]}]])
def test_what_is_no_conversation_is_refused(messages: list[dict[str, Any]], demo: Tokenizer) -> None:
    for strict in (False, True):
        with pytest.raises(TemplateError):
            render(messages, demo, strict=strict)


def test_close_leaves_the_last_turn_closed(gemma: Tokenizer) -> None:
    prompt = render([{"role": "user", "content": "Hello"}], gemma, end="close")
    assert prompt.text == "<bos><start_of_turn>user\nHello<end_of_turn>\n"
    assert prompt.ids == [2, 106, 1645, 108, 4521, 107, 108]


def test_a_system_message_goes_in_front_of_the_first_user_turn(demo: Tokenizer) -> None:
    user, model = {"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yes?"}
    folded = {"role": "user", "content": "Be brief.\n\nHi"}
    system = {"role": "system", "content": " Be brief. "}
    assert render([system, user, model, user], demo) == render([folded, model, user], demo, strict=True)


@pytest.mark.parametrize("roles", [["system"], ["system", "assistant"], ["bishop"]])
def test_a_system_message_alone_and_unknown_roles_are_refused(roles: list[str], demo: Tokenizer) -> None:
    with pytest.raises(TemplateError):
        render([{"role": role, "content": "a"} for role in roles], demo)


def test_an_answer_keeps_the_ids_it_was_generated_as(demo: Tokenizer) -> None:
    text = "the NPU"
    other = tuple(demo.byte_id(b) for b in text.encode())  # the same text in other pieces
    turns = [Message("user", "a"), Message("assistant", text, other), Message("user", "b")]
    ids = render(turns, demo).ids
    start = next(i for i in range(len(ids)) if tuple(ids[i : i + len(other)]) == other)
    assert ids[start + len(other)] == demo.end_of_turn
    plain = [Message("user", "a"), Message("assistant", text), Message("user", "b")]
    assert render(plain, demo).text == render(turns, demo).text


def test_ids_of_an_edited_answer_are_not_used(demo: Tokenizer) -> None:
    stale = tuple(demo.encode("the NPU"))
    edited = [Message("user", "a"), Message("assistant", "the CPU", stale)]
    plain = [Message("user", "a"), Message("assistant", "the CPU")]
    assert render(edited, demo, end="close") == render(plain, demo, end="close")


@pytest.mark.parametrize("record", jsonl("golden_tokens.jsonl"), ids=lambda r: f"{r['n']}-{r['cat']}")
def test_text_becomes_the_golden_ids_and_back(record: dict[str, Any], gemma: Tokenizer) -> None:
    text, ids = record["text"], record["ids"]
    assert gemma.encode(text) == ids
    assert gemma.decode(ids) == text.replace("\u2581", " ")


@pytest.mark.parametrize("record", jsonl("golden_hostile.jsonl"), ids=lambda r: str(r["n"]))
def test_hostile_text_stays_text(record: dict[str, Any], gemma: Tokenizer) -> None:
    ids = gemma.encode(record["text"])
    assert ids == record["safe_ids"]
    assert not CONTROL & set(ids)
    assert gemma.decode(ids) == record["text"].replace("\u2581", " ")


@pytest.mark.parametrize("record", jsonl("golden_hostile.jsonl"), ids=lambda r: str(r["n"]))
def test_hostile_text_stays_text_in_the_demos_tokenizer(record: dict[str, Any], demo: Tokenizer) -> None:
    ids = demo.encode(record["text"])
    control = {0, 1, 2, 3, demo.start_of_turn, demo.end_of_turn}
    assert control == CONTROL
    assert not control & set(ids)
    assert demo.decode(ids) == record["text"].replace("\u2581", " ")


@pytest.mark.parametrize("role", ["user", "assistant", "system", "tool"])
@pytest.mark.parametrize("record", jsonl("golden_hostile.jsonl")[::5], ids=lambda r: str(r["n"]))
def test_no_role_can_write_a_turn(record: dict[str, Any], role: str, demo: Tokenizer) -> None:
    turns = [{"role": role, "content": record["text"]}, {"role": "user", "content": record["text"]}]
    ids = render(turns, demo).ids
    expected = 1 if role == "system" else 2
    assert ids.count(demo.start_of_turn) == expected + 1
    assert ids.count(demo.end_of_turn) == expected
    assert ids.count(demo.bos) == 1
    assert not {0, 1, 3} & set(ids)


def test_a_lone_surrogate_is_refused(demo: Tokenizer) -> None:
    with pytest.raises(PromptError, match="not valid Unicode"):
        demo.encode("a\udcffb")


def test_control_pieces_print_nothing_and_unknown_ids_do_no_harm(demo: Tokenizer) -> None:
    assert [demo.piece_bytes(i) for i in (0, 1, 2, 106, 107, -1, demo.size)] == [b""] * 7
    assert demo.piece(demo.size) == f"<id {demo.size}>"
    assert [demo.piece_bytes(demo.byte_id(b)) for b in range(256)] == [bytes([b]) for b in range(256)]


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\x00" * 64, b"not a model"):
        path = tmp_path / "tokenizer.model"
        path.write_bytes(content)
        with pytest.raises(BundleError) as caught:
            Tokenizer.open(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError):
        Tokenizer.open(tmp_path / "absent.model")
