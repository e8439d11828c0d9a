"""The bundle's tokenizer: given, or taken from a part, and always held against the parts' own vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentencepiece import SentencePieceProcessor

from rk_gemma.pack.gemmavocab import CONTROL, UNKNOWN, USER_DEFINED, gemma_model, is_gemma, sentencepiece_model
from rk_gemma_runtime.chat.tokenizer import END_OF_TURN, START_OF_TURN
from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.rkllmfile.layout import NUMBERS
from rk_gemma_runtime.rkllmfile.vocabulary import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rk_gemma_runtime.rkllmfile.keys import Keys
    from rk_gemma_runtime.rkllmfile.source import Source

TOLERATED = 32  # names of unused tokens differ between conversions
PADDED = 512  # rows that a model may have beyond its tokens: Gemma has 256,000 and files of 256,128 rows exist
TURNS = {START_OF_TURN.encode(), END_OF_TURN.encode()}
CONTROLS = {b"<pad>", b"<eos>", b"<bos>"}
COLUMNS = {"scores": {6}, "token_type": {4, 5}}  # GGUF's types of these arrays: f32; u32 and i32
REMEDY = "give Gemma's tokenizer.model with --tokenizer FILE"


@dataclass(frozen=True)
class Vocabulary:
    """`data` is a SentencePiece model; `origin` says for people where it is from."""

    data: bytes
    origin: str

    def processor(self) -> SentencePieceProcessor:
        """Load it. Raises InputError if it is not a SentencePiece model."""
        try:
            if not self.data:
                raise RuntimeError("empty")
            return SentencePieceProcessor(model_proto=self.data)
        except RuntimeError as error:
            raise InputError(f"{self.origin}: not a SentencePiece model (tokenizer.model)") from error


@dataclass(frozen=True)
class Tokens:
    """A part's own tokens; None where it has none, or they cannot be read."""

    label: str
    rows: int
    pieces: Sequence[bytes] | None


def tokens_of(source: Source, keys: Keys | None, rows: int, label: str) -> Tokens:
    """Read the tokens of an `.rkllm` or a GGUF. Raises InputError if the file is changed meanwhile."""
    found = tokens(source, keys) if keys is not None else None
    return Tokens(label, rows, list(found) if found is not None else None)


def from_rkllm(own: Tokens) -> Vocabulary | None:
    """Make it of an `.rkllm`'s tokens, if they are Gemma's one for one: their scores are not in question then."""
    if own.pieces is None or not is_gemma(own.pieces):
        return None
    return Vocabulary(gemma_model(own.pieces), f"the tokens in {own.label}, which are Gemma's")


def from_gguf(source: Source, keys: Keys, own: Tokens) -> Vocabulary | None:
    """Make it of a GGUF's tokens with its scores and kinds; None if it has no SentencePiece vocabulary that can be
    read. Raises InputError for one that is damaged."""
    if own.pieces is None or keys.string("tokenizer.ggml.model") != "llama":
        return None
    if is_gemma(own.pieces):  # converters disagree about kinds, not about pieces
        return Vocabulary(gemma_model(own.pieces), f"the tokens in {own.label}, which are Gemma's")
    count = len(own.pieces)
    scores, kinds = _column(source, keys, "scores", count), _column(source, keys, "token_type", count)
    if len(scores) != count or len(kinds) != count:
        return None
    named = [_kind(piece, int(kind)) for piece, kind in zip(own.pieces, kinds, strict=True)]
    try:
        model = sentencepiece_model(own.pieces, scores, named)
    except ValueError as error:  # a piece that is not UTF-8, a kind that SentencePiece does not have
        raise InputError(
            f"{own.label}: its vocabulary is damaged: {error}; download it again, or {REMEDY}"
        ) from error
    return Vocabulary(model, f"the tokens in {own.label}")


def check_vocabulary(chosen: Vocabulary, parts: Sequence[Tokens]) -> list[str]:
    """Hold it against the parts. Returns notes. Raises InputError with the first token that differs."""
    processor = chosen.processor()
    size = int(processor.get_piece_size())
    notes = []
    for part in parts:
        if part.rows and size > part.rows:
            raise InputError(f"{chosen.origin}: {size} pieces, {part.label} has {part.rows} rows; {REMEDY}")
        if part.pieces is None:
            if part.rows and size < part.rows - PADDED:
                raise InputError(f"{chosen.origin}: {size} pieces, {part.label} has {part.rows} rows; {REMEDY}")
            notes.append(
                f"{chosen.origin} could not be held against the tokens of {part.label}, which cannot be read"
            )
            continue
        if part.rows and size < len(part.pieces) - TOLERATED:
            raise InputError(f"{chosen.origin}: {size} pieces, {part.label} has {len(part.pieces)} tokens; {REMEDY}")
        odd = [n for n in range(min(size, len(part.pieces))) if processor.id_to_piece(n).encode() != part.pieces[n]]
        if len(odd) > TOLERATED:
            ours, theirs = processor.id_to_piece(odd[0]), part.pieces[odd[0]].decode("utf-8", "replace")
            words = f"token {odd[0]} is {ours!r}, {part.label} has {theirs!r}, and {len(odd) - 1} more differ"
            raise InputError(f"{chosen.origin} does not match: {words}; {REMEDY}")
        if odd:
            notes.append(f"{len(odd)} tokens are named otherwise in {part.label}, the first is {odd[0]}")
    return notes


def _kind(piece: bytes, kind: int) -> int:
    if piece in TURNS:
        return USER_DEFINED  # as in Gemma's own file; the runtime never makes them of text
    if piece in CONTROLS:
        return CONTROL
    return UNKNOWN if piece == b"<unk>" else USER_DEFINED if kind == CONTROL else kind


def _column(source: Source, keys: Keys, name: str, count: int) -> list[float]:
    """Read numbers of 4 bytes; none are read unless there are `count` of them."""
    entry = keys.array(f"tokenizer.ggml.{name}")
    if entry is None or entry.length != count or entry.of not in COLUMNS[name]:
        return []
    form = NUMBERS[entry.of]
    data = source.read(entry.at, count * form.size)
    return [value for (value,) in form.iter_unpack(data)] if len(data) == count * form.size else []
