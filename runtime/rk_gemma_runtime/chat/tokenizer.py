"""Gemma's SentencePiece tokenizer, in which text can never become a control token.

In Gemma's tokenizer.model the turn markers are user-defined pieces, so plain SentencePiece encoding turns
"<start_of_turn>" in a user's text into id 106. `encode` breaks the text after the "<" of each literal marker and
encodes the parts apart: the same ids as a model in which both pieces are typed CONTROL.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from sentencepiece import SentencePieceProcessor

from rk_gemma_runtime.errors import BundleError, PromptError

if TYPE_CHECKING:
    from pathlib import Path

START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"
SPACE = "\u2581"


class Tokenizer:
    """Text to ids and back. Not tied to a thread once opened."""

    def __init__(self, processor: SentencePieceProcessor) -> None:
        self._sp = processor
        self._breaks = re.compile(f"(?<=<)(?={'|'.join(re.escape(m[1:]) for m in (START_OF_TURN, END_OF_TURN))})")

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """Load a tokenizer.model. Raises BundleError if it is none, or is not Gemma's kind."""
        try:
            return cls.parse(path.read_bytes(), path)
        except OSError as error:
            raise BundleError(f"{path}: not a SentencePiece model ({error.strerror})") from error

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Tokenizer:
        """Make one of a tokenizer.model's content; `path` is where errors say it lies. Raises as `open`."""
        try:
            processor = SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise BundleError(f"{path}: not a SentencePiece model (damaged, or another format)") from error
        if not data:
            raise BundleError(f"{path}: empty")
        tokenizer = cls(processor)
        for name, marker in (("start", tokenizer.start_of_turn), ("end", tokenizer.end_of_turn)):
            if marker == processor.unk_id():
                raise BundleError(f"{path}: has no <{name}_of_turn> piece, so it is not Gemma's tokenizer")
        return tokenizer

    @property
    def size(self) -> int:
        """Number of pieces."""
        return int(self._sp.get_piece_size())

    @property
    def bos(self) -> int:
        """Id of <bos>."""
        return int(self._sp.bos_id())

    @property
    def eos(self) -> int:
        """Id of <eos>."""
        return int(self._sp.eos_id())

    @cached_property
    def start_of_turn(self) -> int:
        """Id of <start_of_turn>."""
        return int(self._sp.piece_to_id(START_OF_TURN))

    @cached_property
    def end_of_turn(self) -> int:
        """Id of <end_of_turn>."""
        return int(self._sp.piece_to_id(END_OF_TURN))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without <bos>; none of them is a control id, whatever the text says.

        Raises PromptError for lone surrogates, which no UTF-8 text holds.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(f"the text is not valid Unicode at character {error.start}: {error.reason}") from error
        return [token for part in self._breaks.split(text) for token in self._sp.encode(part)]

    def piece(self, token: int) -> str:
        """The piece as the model names it, with U+2581 for a space."""
        return str(self._sp.id_to_piece(token)) if 0 <= token < self.size else f"<id {token}>"

    def piece_bytes(self, token: int) -> bytes:
        """What the token prints: nothing for control pieces, one byte for a byte piece."""
        if not 0 <= token < self.size or self.is_control(token):
            return b""
        piece = str(self._sp.id_to_piece(token))
        if self._sp.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        if self._sp.is_unknown(token):
            return " \u2047 ".encode()
        return piece.replace(SPACE, " ").encode()

    def is_control(self, token: int) -> bool:
        """True for ids that end or shape a conversation and never print."""
        markers = (self.start_of_turn, self.end_of_turn)
        return token in markers or bool(self._sp.is_control(token))

    def byte_id(self, value: int) -> int:
        """Id of the byte piece for a byte value."""
        return int(self._sp.piece_to_id(f"<0x{value:02X}>"))

    def decode(self, ids: list[int]) -> str:
        """Text of ids. A literal U+2581 comes back as a space, as SentencePiece has it."""
        return b"".join(map(self.piece_bytes, ids)).decode("utf-8", errors="replace")
