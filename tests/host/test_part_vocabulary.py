"""A part's vocabulary: damaged, lying, or not to be read; and the tokenizer held against it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from partkit import TOKENIZER, vocabulary, write_gguf
from rkllmkit import U64

from rk_gemma.pack.pack import pack
from rk_gemma.pack.vocabulary import PADDED, Tokens, Vocabulary, check_vocabulary, from_gguf, tokens_of
from rk_gemma.pack.wishes import Wishes
from rk_gemma.parts.gguf import read_gguf
from rk_gemma_runtime.errors import InputError, RkGemmaError
from rk_gemma_runtime.rkllmfile.source import BytesSource, FileSource

if TYPE_CHECKING:
    from pathlib import Path

SIZE = len(vocabulary()[0])
DEMO = Vocabulary(TOKENIZER.read_bytes(), "demo.model")


@pytest.mark.parametrize("rows", [SIZE, SIZE + 128, SIZE + PADDED, 0])
def test_a_tokenizer_beside_unread_tokens_is_taken_with_a_note(rows: int) -> None:
    (note,) = check_vocabulary(DEMO, [Tokens("m.rkllm", rows, None)])
    assert "could not be held against the tokens of m.rkllm" in note


@pytest.mark.parametrize("rows", [SIZE - 1, SIZE + PADDED + 1, 32_000, 256_000, 256_128, 262_144])
def test_a_tokenizer_of_the_wrong_size_is_refused_beside_unread_tokens(rows: int) -> None:
    with pytest.raises(InputError, match=f"{SIZE} pieces, m.rkllm has {rows} rows"):
        check_vocabulary(DEMO, [Tokens("m.rkllm", rows, None)])


def made_of(path: Path) -> Vocabulary | None:
    with FileSource(path) as source:
        facts = read_gguf(source)
        return from_gguf(source, facts.keys, tokens_of(source, facts.keys, facts.vocab, str(path)))


def changed(column: str, value: Any) -> dict[str, tuple[str, Any]]:
    pieces, scores, kinds = (list(part) for part in vocabulary())
    parts: dict[str, tuple[str, list[Any]]] = {
        "tokens": ("strings", pieces), "scores": ("f32s", scores), "token_type": ("i32s", kinds),
    }  # fmt: skip
    parts[column][1][700] = value
    return {f"tokenizer.ggml.{column}": parts[column]}


@pytest.mark.parametrize("kind", [0, 7, 9, -1, 1 << 30, -(1 << 31)])
def test_a_kind_of_token_that_does_not_exist_is_damage(kind: int, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m-Q4_0.gguf", **changed("token_type", kind))
    with pytest.raises(InputError, match=r"m-Q4_0.gguf: its vocabulary is damaged: .*download it again"):
        made_of(path)


@pytest.mark.parametrize("byte", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\x80"])
def test_a_piece_that_is_not_utf8_is_damage(byte: bytes, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m-Q4_0.gguf", **changed("tokens", "@" * 40 + "$" * len(byte)))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"@" * 40 + b"$" * len(byte), b"@" * 40 + byte))
    with pytest.raises(InputError, match=r"m-Q4_0.gguf: its vocabulary is damaged: .*download it again"):
        made_of(path)


@pytest.mark.parametrize("length", [257, 300, 1 << 16, 2 << 20])
def test_a_token_longer_than_any_is_not_read(length: int, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "gemma-2-tiny-it-Q4_0.gguf", **changed("tokens", "x" * length))
    assert made_of(path) is None
    notes: list[str] = []
    pack([path, TOKENIZER], tmp_path / "b", Wishes(), warn=notes.append)
    assert any("could not be held against" in note for note in notes)


def test_a_token_of_256_bytes_is_read(tmp_path: Path) -> None:
    assert made_of(write_gguf(tmp_path / "m-Q4_0.gguf", **changed("tokens", "x" * 256))) is not None


class Counting(FileSource):
    """A file that remembers its largest read."""

    largest = 0

    def read(self, offset: int, length: int) -> bytes:
        self.largest = max(self.largest, length)
        return super().read(offset, length)


@pytest.mark.parametrize("column", ["scores", "token_type"])
@pytest.mark.parametrize("count", [0, 1, SIZE - 1, SIZE + 1, 2_000_000])
def test_columns_of_another_length_are_not_read(column: str, count: int, tmp_path: Path) -> None:
    kind = "f32s" if column == "scores" else "i32s"
    path = write_gguf(tmp_path / "m-Q4_0.gguf", **{f"tokenizer.ggml.{column}": (kind, [1] * count)})
    with Counting(path) as source:
        facts = read_gguf(source)
        own = tokens_of(source, facts.keys, facts.vocab, "m")
        assert from_gguf(source, facts.keys, own) is None
        assert source.largest <= 1 << 20


@pytest.mark.parametrize(
    ("column", "kind"), [("scores", "i32s"), ("scores", "u32s"), ("scores", "f64s"), ("token_type", "f32s")]
)
def test_columns_of_another_type_are_not_taken(column: str, kind: str, tmp_path: Path) -> None:
    words = {f"tokenizer.ggml.{column}": (kind, [1] * SIZE)}
    assert made_of(write_gguf(tmp_path / "m-Q4_0.gguf", **words)) is None


@pytest.mark.parametrize("kind", ["u32s", "u8s", "f32s"])
def test_tokens_that_are_not_strings_are_not_taken(kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m-Q4_0.gguf", **{"tokenizer.ggml.tokens": (kind, [1] * SIZE)})
    assert made_of(path) is None


def test_a_file_that_changes_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    data = write_gguf(tmp_path / "m-Q4_0.gguf").read_bytes()
    facts = read_gguf(BytesSource(data, "m"))
    entry = facts.keys.array("tokenizer.ggml.tokens")
    assert entry is not None
    later = data[: entry.at] + U64.pack(1 << 40) + data[entry.at + 8 :]
    for other in (later, data[: entry.at + 20]):
        with pytest.raises(InputError, match="changed while it was read"):
            tokens_of(BytesSource(other, "m"), facts.keys, facts.vocab, "m")


@pytest.mark.parametrize("seed", range(3))
def test_mutations_of_a_vocabulary_are_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    pick, data = random.Random(seed), write_gguf(tmp_path / "m-Q4_0.gguf").read_bytes()
    end = len(data) - SIZE * 128
    for _ in range(12):
        broken = bytearray(data)
        for _ in range(3):
            broken[pick.randrange(1000, end)] = pick.randrange(256)
        source = BytesSource(bytes(broken), "m")
        try:
            facts = read_gguf(source)
            made = from_gguf(source, facts.keys, tokens_of(source, facts.keys, facts.vocab, "m"))
            if made is not None:
                made.processor()
        except RkGemmaError as error:
            assert "\n" not in str(error)
