"""Whether the library says what the bundle's tokenizer says: another one's ids would be answered with other words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.events import Noticed

if TYPE_CHECKING:
    from rk_gemma_runtime.chat.tokenizer import Tokenizer
    from rk_gemma_runtime.events import Heard

ENOUGH = 4  # texts that contradict


class Ear:
    """Compares the first texts. Blanks say nothing: the two write them differently."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._same = self._other = 0

    def hear(self, heard: Heard) -> Noticed | None:
        """What a person should know now, once."""
        if self._tokenizer is None:
            return None
        theirs, ours = heard.text.strip(), self._tokenizer.piece_bytes(heard.token).strip()
        if not theirs or not ours or (not ours.isascii() and len(ours) == 1):  # a part of a character
            return None
        self._same += theirs == ours
        self._other += theirs != ours
        if theirs == ours or self._other != ENOUGH or self._same >= self._other:
            return None
        said, meant = (text.decode(errors="replace") for text in (theirs, ours))
        return Noticed(
            "other_tokenizer",
            f"librkllmrt says {said!r} for token {heard.token}, the bundle's tokenizer {meant!r}: its tokenizer.model"
            " is another model's; export the bundle again",
        )
