"""Tokens that a fine-tune added to Gemma's vocabulary, and a SentencePiece model that has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.config import read_json
from rk_gemma.checkpoint.values import cut, is_whole, plain_text, token_id
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sentencepiece import SentencePieceProcessor

SPACE = "\u2581"
TAB = "<0x09>"  # transformers before 4.50 wrote the tab itself
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # SentencePiece's numbers


@dataclass(frozen=True)
class AddedToken:
    """A token as transformers' files have it. Text never becomes a special one, and it prints nothing."""

    content: str
    special: bool

    @property
    def piece(self) -> str:
        """Its spelling in SentencePiece."""
        return self.content.replace(" ", SPACE)


def added_tokens(directory: Path) -> dict[int, AddedToken]:
    """Read them by id from the files that may state them. Raises CheckpointError.

    tokenizer.json is large, and read only if tokenizer_config.json does not state them, as since transformers 5.
    """
    stated = _read(directory / "tokenizer_config.json", _decoder) or _read(directory / "tokenizer.json", _full)
    return {**_read(directory / "added_tokens.json", _flat), **stated}


def _read(path: Path, read: Callable[[Mapping[str, Any]], Iterator[tuple[int, AddedToken]]]) -> dict[int, AddedToken]:
    if not path.is_file():
        return {}
    try:
        return {number: token for number, token in read(read_json(path)) if token.content}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The words of the others are Python's own.
        reason = f": {cut(error)}" if type(error) is ValueError else ""
        raise CheckpointError(f"{path}: not a table of added tokens{reason}") from error


def _flat(tree: Mapping[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    return ((token_id(number), AddedToken(plain_text(content), special=True)) for content, number in tree.items())


def _decoder(tree: Mapping[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    table = tree.get("added_tokens_decoder") or {}
    return ((token_id(int(number) if number.isdecimal() else number), _token(fact)) for number, fact in table.items())


def _full(tree: Mapping[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    return ((token_id(fact["id"]), _token(fact)) for fact in tree.get("added_tokens") or [])


def _token(fact: Mapping[str, Any]) -> AddedToken:
    return AddedToken(plain_text(fact["content"]), bool(fact.get("special")))


def news(processor: SentencePieceProcessor, added: Mapping[int, AddedToken]) -> dict[int, AddedToken]:
    """Return those that the SentencePiece model has not, or has under another spelling, in the order of ids."""
    size = processor.get_piece_size()
    return {
        number: added[number]
        for number in sorted(added)
        if number >= size or processor.id_to_piece(number) not in (added[number].content, added[number].piece)
    }


def contradiction(path: Path, processor: SentencePieceProcessor, added: Mapping[int, AddedToken]) -> str:
    """Say where a tokenizer.json gives an id to another piece than the SentencePiece model and the `added` tokens do;
    nothing if nowhere."""
    model = (read_json(path) if path.is_file() else {}).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    for piece, number in vocab.items() if isinstance(vocab, dict) else ():
        if is_whole(number) and 0 <= number < processor.get_piece_size():
            ours = processor.id_to_piece(number)
            known = {ours, added[number].content if number in added else ours, "\t" if ours == TAB else ours}
            if piece not in known:
                return f"id {number} is {piece!r} there and {ours!r} here"
    return ""


def extended(path: Path, data: bytes, fresh: Mapping[int, AddedToken], rows: int) -> bytes:
    """Put tokens into a SentencePiece model of `path`; ids between them stay unused. Raises CheckpointError."""
    from sentencepiece import sentencepiece_model_pb2 as sp

    last = max(fresh)
    if min(fresh) < 0 or last >= rows:
        raise CheckpointError(
            f"{path.parent}: added token {fresh[last].content!r} has id {last}, the model has {rows} rows"
        )
    model = sp.ModelProto()
    model.ParseFromString(data)
    for number in range(len(model.pieces), last + 1):
        model.pieces.add(piece=f"<unused_row{number}>", score=0.0, type=UNUSED)
    for number, token in fresh.items():
        model.pieces[number].piece = token.piece
        if model.pieces[number].type == UNUSED:
            model.pieces[number].type = CONTROL if token.special else USER_DEFINED
    spellings = [piece.piece for piece in model.pieces]
    if len(set(spellings)) != len(spellings):
        twice = next(t.content for t in fresh.values() if spellings.count(t.piece) > 1)
        raise CheckpointError(f"{path.parent}: added token {twice!r} has two ids; remove one from tokenizer.json")
    return bytes(model.SerializeToString())
