"""A checkpoint with tokenizer.json and no tokenizer.model: the same ids, or the remedy."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import errors_of, write_checkpoint
from sentencepiece import SentencePieceProcessor
from tokenkit import DEMO_TOKENIZER, added, checkpoint_with_tokenizer, pieces, put, tokenizer_json

from rk_gemma.checkpoint.rebuild import rebuilt
from rk_gemma.checkpoint.tokens import contradiction
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def texts(words: list[str], count: int) -> Iterator[str]:
    pick = random.Random(5)
    for number in range(count):
        if number % 2:
            yield "".join(pick.choices(words, k=8)).replace("\u2581", " ")
        else:
            yield "".join(chr(pick.choice((pick.randrange(32, 127), pick.randrange(160, 0x9000)))) for _ in range(24))


@pytest.mark.parametrize("form", ["lists", "texts"])
@pytest.mark.parametrize("split", [True, False])
def test_the_original_comes_back(form: str, split: bool, tmp_path: Path) -> None:
    tree = tokenizer_json()
    if form == "texts":  # before tokenizers 0.20
        tree["model"]["merges"] = [" ".join(pair) for pair in tree["model"]["merges"]]
    if not split:
        tree["pre_tokenizer"] = None
    new = SentencePieceProcessor(model_proto=rebuilt(put(tmp_path / "tokenizer.json", tree)))
    old = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())
    for text in texts([piece for piece, *_ in pieces()], 400):
        assert new.encode(text) == old.encode(text)
    for number in range(old.get_piece_size()):
        assert new.id_to_piece(number) == old.id_to_piece(number)
        assert new.is_control(number) == old.is_control(number)


def test_export_says_it_and_speaks(tmp_path: Path, main: Callable[..., Any]) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", kind="json")
    done = main("export", source, "-o", tmp_path / "out")
    assert done.code == 0 and "made from tokenizer.json" in done.stderr
    tokenizer = Tokenizer.open(tmp_path / "out" / "tokenizer.model")
    assert tokenizer.encode("The NPU") == Tokenizer.open(DEMO_TOKENIZER).encode("The NPU")


def test_tokens_that_were_added_to_it(tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", 2, kind="json")
    tree, size = tokenizer_json(), len(pieces())
    tree["added_tokens"].append(added(size, "<tool>", special=False))
    put(source / "tokenizer.json", tree)
    bundle = export(source, tmp_path / "out", Options("none"))
    assert size in Tokenizer.open(bundle.path("tokenizer.model")).encode("a <tool> b")


@pytest.mark.parametrize("gap", [True, False])
def test_a_tab_in_the_place_of_its_byte(gap: bool, tmp_path: Path) -> None:
    """As converters wrote it at first, also where the vocabulary has a tab of its own besides."""
    source = checkpoint_with_tokenizer(tmp_path / "src", kind="json")
    tree = tokenizer_json()
    place = tree["model"]["vocab"].pop("<0x09>")
    if not gap:
        tree["model"]["vocab"]["\t"] = place
    put(source / "tokenizer.json", tree)
    bundle = export(source, tmp_path / "out", Options("none"))
    assert bundle.path("tokenizer.model")
    made = SentencePieceProcessor(model_proto=rebuilt(source / "tokenizer.json"))
    ours = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())
    for text in ("\t", "a\tb", "\t\t\tc \t"):
        assert made.encode(text) == ours.encode(text)
        assert made.decode(made.encode(text)) == text


@pytest.mark.parametrize("where", [300, 700, -1])
def test_another_tokenizer_beside_is_said(where: int, tmp_path: Path) -> None:
    source, tree, said = checkpoint_with_tokenizer(tmp_path / "src"), tokenizer_json(), list[str]()
    put(source / "tokenizer.json", tree)
    export(source, tmp_path / "same", Options("none"), said.append)
    assert said == []
    names = sorted(tree["model"]["vocab"], key=tree["model"]["vocab"].__getitem__)
    tree["model"]["vocab"][f"{names[where]}x"] = tree["model"]["vocab"].pop(names[where])
    put(source / "tokenizer.json", tree)
    export(source, tmp_path / "out", Options("none"), said.append)
    assert len(said) == 1 and f"{names[where]}x' there" in said[0] and "tokenizer.model, which is taken" in said[0]


@pytest.mark.parametrize(
    "part", [{"model": None}, {"added_tokens": 5}, {"model": {"type": "BPE", "byte_fallback": True}}]
)
def test_what_is_wrong_is_not_told_in_pythons_words(part: dict[str, Any], tmp_path: Path) -> None:
    path = put(tmp_path / "tokenizer.json", {**tokenizer_json(), **part})
    with pytest.raises(CheckpointError, match=r"copy tokenizer\.model") as caught:
        rebuilt(path)
    assert "object" not in str(caught.value)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1.0, True, "7", None, -1])
def test_an_id_that_is_none(number: Any, tmp_path: Path) -> None:
    tree = tokenizer_json()
    tree["model"]["vocab"]["ab"] = number
    with pytest.raises(CheckpointError, match=r"impossible id .*copy tokenizer\.model"):
        rebuilt(put(tmp_path / "tokenizer.json", tree))


def changed(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = copy.deepcopy(tokenizer_json())
    model = tree["model"]
    if name == "no byte fallback":
        model["byte_fallback"] = False
    elif name == "another algorithm":
        model["type"] = "Unigram"
    elif name == "prefix":
        prepend = {"type": "Prepend", "prepend": "\u2581"}
        tree["normalizer"] = {"type": "Sequence", "normalizers": [prepend, tree["normalizer"]]}
    elif name == "byte level":
        tree["pre_tokenizer"] = {"type": "ByteLevel"}
    elif name == "merges in another order":
        random.Random(1).shuffle(model["merges"])
    elif name == "merges lack one":
        del model["merges"][-1]
    elif name == "gap":
        model["vocab"][max(model["vocab"], key=model["vocab"].__getitem__)] += 5
    elif name == "no merges":
        del model["merges"]
    elif name == "no bos":
        model["vocab"]["<s>"] = model["vocab"].pop("<bos>")
    else:
        return {"version": "1.0", "model": {"type": "BPE"}}
    return tree


@pytest.mark.parametrize(
    "name", ["no byte fallback", "another algorithm", "prefix", "byte level", "merges in another order",
             "merges lack one", "gap", "no merges", "no bos", "empty"],
)  # fmt: skip
def test_what_cannot_be_proven_gets_the_remedy(name: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", kind="json")
    put(source / "tokenizer.json", changed(name))
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    said = errors_of(done.stderr)[0]
    assert "copy tokenizer.model of the base model" in said and "--chat-template none" in said
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    done = main("export", source, "-o", tmp_path / "b", "--chat-template", "none", "--npu", "none")
    assert done.code == 0 and "token ids only" in done.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_damaged_json(text: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    source = write_checkpoint(tmp_path / "src")
    (source / "tokenizer.json").write_text(text)
    done = main("export", source, "-o", tmp_path / "b")
    assert done.code == 3 and "tokenizer.json" in errors_of(done.stderr)[0]
    assert "copy tokenizer.model of the base model" in errors_of(done.stderr)[0]


@pytest.mark.slow
def test_against_the_tokenizers_package(tmp_path: Path, gemma_tokenizer: Path) -> None:
    """Gemma's own tokenizer, converted by transformers and rebuilt."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install rk-gemma[eval]")
    package = pytest.importorskip("tokenizers", reason="needs tokenizers: pip install rk-gemma[eval]")
    (tmp_path / "tokenizer.model").write_bytes(gemma_tokenizer.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    transformers.AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "tokenizer.json"
    new = SentencePieceProcessor(model_proto=rebuilt(path))
    old = SentencePieceProcessor(model_proto=gemma_tokenizer.read_bytes())
    theirs = package.Tokenizer.from_file(str(path))
    assert contradiction(path, old, {}) == ""
    words = [old.id_to_piece(n) for n in range(4, old.get_piece_size())]
    for text in texts(words, 2000):
        ids = new.encode(text)
        assert ids == old.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_rebuilt_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not Gemma's tokenizer \(no 'model'\)"):
        rebuilt(put(tmp_path / "tokenizer.json", {"a": 1}))
