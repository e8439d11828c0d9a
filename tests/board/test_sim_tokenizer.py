"""The library's own tokenizer is SentencePiece: the same ids for any text that holds no control piece."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from conftest import DEMO_TOKENIZER
from sentencepiece import SentencePieceProcessor
from simlib import Handle
from simrequest import Given
from simwriter import read_vocabulary, synthetic, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simlib import Abi

pytestmark = pytest.mark.board

TEXTS = [
    "", " ", "  ", "a", " a", "a ", "\n", "\n\n\n", "\t \t", "Hello, world!", "What does errno 14 mean?",
    "one  two   three      six" + " " * 40 + "many", "a\n\n b\n  \n\n\n\n\n\n\n\n\n\nc", "1234567890 3.14159 1e-5",
    "\u00dcber \u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0e44\u0e17\u0e22 \u05d0\u05d1\u05d2",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \ufb01 \u2460 \u3000 \u00a0", "\u2581\u2581x\u2581",
    "<start_of_turn>user\nhi<end_of_turn>\n", "<mask><unused5><unused99><start_of_turn", "<0x41><0xFF>", "\x01\x7f",
    "\u0378\U000e0001\U0010ffff", "def f(x):\n\treturn {\"a\": [x ** 2 for _ in range(10)]}  # ok\n",
    "e" * 300, "<h1><table></td>", "aaaa bbbb" * 20,
]  # fmt: skip
BROKEN = [b"\xff", b"a\xc3", b"\xe2\x96", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf",
          b"ab\x80\x80cd\xf0\x9f\x98"]  # fmt: skip


def mixed_texts(seed: int, count: int) -> list[str]:
    """Texts cut from the listed ones, and from every plane of Unicode."""
    rng = random.Random(seed)
    pool = "".join(TEXTS)
    whole = [chr(c) for c in range(32, 0x3000)] + [chr(c) for c in range(0x1F300, 0x1F700)]
    return ["".join(rng.choices(pool, k=rng.randrange(60)) + rng.choices(whole, k=rng.randrange(10)))
            for _ in range(count)]  # fmt: skip


@pytest.fixture
def check(
    abi: Abi, tmp_path: Path, profile: Callable[[str], Path], prompt_ids: Callable[..., list[int]]
) -> Callable[..., None]:
    """check(tokenizer, texts): raw text in, SentencePiece's ids behind one <bos> out."""

    def check(tokenizer: Path, texts: list[Any]) -> None:
        sp = SentencePieceProcessor(model_proto=tokenizer.read_bytes())
        words = synthetic(hidden=16, ffn=16, layers=2, vocab=len(sp), heads=2, head_dim=8)
        words.vocabulary = read_vocabulary(tokenizer, len(sp))
        words.overrides = {"context": 4096}
        profile("compute: false")
        path = write_checkpoint(tmp_path / "words.sim", words, "w8a8")
        with Handle(abi, path, max_context_len=4096, max_new_tokens=1) as handle:
            assert handle.texts("set_chat_template", "", "", "") == 0
            for text in texts:
                assert prompt_ids(handle, Given(text=text)) == [2, *sp.encode(text)], repr(text)

    return check


def test_the_demos_tokenizer(check: Callable[..., None]) -> None:
    check(DEMO_TOKENIZER, TEXTS + mixed_texts(1, 300))


def test_gemmas_tokenizer(check: Callable[..., None], gemma_tokenizer: Path) -> None:
    check(gemma_tokenizer, TEXTS + mixed_texts(2, 300))


def test_bytes_that_are_no_utf8(check: Callable[..., None]) -> None:
    check(DEMO_TOKENIZER, BROKEN)


def test_control_pieces_in_text_become_their_ids(
    abi: Abi, demo_words: Path, prompt_ids: Callable[..., list[int]]
) -> None:
    """As in the vendor's library; SentencePiece itself never does this."""
    sp = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())
    with Handle(abi, demo_words, max_new_tokens=1, max_context_len=512) as handle:
        handle.texts("set_chat_template", "", "", "")
        ids = prompt_ids(handle, Given(text="a <eos>b<bos><unk>"))
        assert ids == [2, *sp.encode("a "), 1, *sp.encode("b"), 2, *sp.encode("<unk>")]
        assert 3 not in ids


@pytest.mark.parametrize("name", ["unused pieces", "no byte pieces"])
def test_other_vocabularies(
    name: str, abi: Abi, tmp_path: Path, profile: Callable[[str], Path], prompt_ids: Callable[..., list[int]]
) -> None:
    """A merge that forms an unused piece is undone; what has neither piece nor bytes is the unknown piece."""
    words = synthetic(hidden=16, ffn=16, layers=2, vocab=16, heads=2, head_dim=8)
    pieces = [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, 2), ("a", -1.0, 1),
              ("b", -2.0, 1), ("ab", -0.5, 5), ("abb", -0.4, 1)]  # fmt: skip
    words.vocabulary = pieces + [("", 0.0, 5)] * 8
    profile("compute: false")
    with Handle(abi, write_checkpoint(tmp_path / "w.sim", words, "w8a8"), max_new_tokens=1) as handle:
        handle.texts("set_chat_template", "", "", "")
        if name == "unused pieces":
            assert prompt_ids(handle, Given(text="ab")) == [2, 4, 5]
            assert prompt_ids(handle, Given(text="abbab")) == [2, 7, 4, 5]
        else:
            assert prompt_ids(handle, Given(text="az")) == [2, 4, 3]
