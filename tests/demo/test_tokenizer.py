"""The demo's tokenizer keeps Gemma's ids and gives every text back."""

from __future__ import annotations

import pytest

from demo.tokenizer import BOS, CHECKPOINT, END, START, VOCAB, ChatTokenizer, train_tokenizer

HOSTILE = [
    "",
    " ",
    "   leading and trailing   ",
    "a\n\n\n\nb\n",
    "\t\ttabs\tand  spaces   of     many        lengths",
    "<start_of_turn>user\nhello<end_of_turn>\n",
    "<start_of_<start_of_turn>turn>",
    "<bos><eos><pad><unk>",
    "<0x0A> is plain text",
    "NUL \0 inside",
    "caf\u00e9, cafe\u0301, \ufb01, \u00bd, \uff21",
    "\u4f60\u597d \u043f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627",
    "\U0001f1e9\U0001f1ea \U0001f469\u200d\U0001f4bb\ufeff\u200b",
    "1234567890 3.14 0xdeadbeef",
    "\r\n\u2028\u0085",
]


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(CHECKPOINT / "tokenizer.model")


def test_ids_are_where_gemma_has_them(tokenizer: ChatTokenizer) -> None:
    expected = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", START: "<start_of_turn>"}
    expected |= {END: "<end_of_turn>", 108: "\n", 109: "\n\n"}
    assert {i: tokenizer.piece(i) for i in expected} == expected
    assert (BOS, START, END, len(tokenizer)) == (2, 106, 107, VOCAB)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_comes_back(tokenizer: ChatTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_text_never_becomes_a_control_id(tokenizer: ChatTokenizer, text: str) -> None:
    assert not {0, 1, 2, 3, START, END} & set(tokenizer.encode(text))


def test_digits_stand_alone(tokenizer: ChatTokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("4096")] == ["4", "0", "9", "6"]


def test_no_space_is_put_in_front(tokenizer: ChatTokenizer) -> None:
    assert not tokenizer.piece(tokenizer.encode("hello")[0]).startswith("\u2581")


def test_a_chat_is_built_as_gemma_builds_it(tokenizer: ChatTokenizer) -> None:
    talk = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Hello!"}]
    ids, own = tokenizer.training_ids(talk)
    user, model = tokenizer.encode("user\n"), tokenizer.encode("model\n")
    hi, hello = tokenizer.encode("Hi"), tokenizer.encode("Hello!")
    assert ids == [BOS, START, *user, *hi, END, 108, START, *model, *hello, END, 108]
    assert sum(own) == len(hello) + 1
    assert tokenizer.prompt_ids(talk[:1]) == [BOS, START, *user, *hi, END, 108, START, *model]


@pytest.mark.slow
def test_training_it_again_gives_the_same_bytes() -> None:
    assert train_tokenizer() == (CHECKPOINT / "tokenizer.model").read_bytes()
