"""The tokenizer: trained with SentencePiece on the corpus, ids where Gemma has them.

0 <pad>, 1 <eos>, 2 <bos>, 3 <unk>, 4..105 fillers, 106 and 107 the turn markers, then runs of newlines
and of spaces, the 256 bytes, and the learned pieces.
"""

from __future__ import annotations

import argparse
import io
import itertools
import re
from pathlib import Path

import sentencepiece as spm

from demo.corpus import Conversation, Corpus
from demo.facts import HERE

CHECKPOINT = HERE / "checkpoint"
VOCAB = 2048
BOS, START, END = 2, 106, 107
SPACE = "\u2581"
MARKER_CUT = re.compile("(?<=<)(?=(?:start|end)_of_turn>)")


def user_pieces() -> list[str]:
    """The user-defined pieces from id 4 on."""
    fillers = ["<mask>", *(f"<unused{i}>" for i in range(101))]
    newlines = ["\n" * n for n in range(1, 9)]
    return [*fillers, "<start_of_turn>", "<end_of_turn>", *newlines, *(SPACE * n for n in range(2, 9))]


def train_tokenizer(seed: int = 1, conversations: int = 30_000) -> bytes:
    """The serialized model; the same bytes for the same seed."""
    said = itertools.islice(Corpus(seed), conversations)
    lines = (line for talk in said for message in talk for line in message["content"].split("\n") if line)
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB,
        user_defined_symbols=user_pieces(),
        pad_id=0,
        eos_id=1,
        bos_id=BOS,
        unk_id=3,
        eos_piece="<eos>",
        bos_piece="<bos>",
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


class ChatTokenizer:
    """Conversations to ids. Markers are placed as numbers; text can never become one."""

    def __init__(self, model: Path | bytes) -> None:
        proto = model if isinstance(model, bytes) else model.read_bytes()
        self._model = spm.SentencePieceProcessor(model_proto=proto)

    def __len__(self) -> int:
        return int(self._model.get_piece_size())

    def piece(self, token: int) -> str:
        return str(self._model.id_to_piece(token))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a marker written in the text is cut after its '<' and stays plain."""
        return [token for part in MARKER_CUT.split(text) for token in self._model.encode(part)]

    def decode(self, ids: list[int]) -> str:
        return str(self._model.decode(ids))

    def turn(self, message: dict[str, str]) -> tuple[list[int], list[int]]:
        """Opening and content of a turn; the content ends with the end marker."""
        role = "model" if message["role"] == "assistant" else "user"
        opening = [START, *self.encode(f"{role}\n")]
        return opening, [*self.encode(message["content"].strip()), END]

    def training_ids(self, talk: Conversation) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and for each whether the model is the one who says it."""
        ids, own = [BOS], [False]
        newline = self.encode("\n")
        for message in talk:
            opening, content = self.turn(message)
            ids += [*opening, *content, *newline]
            own += [False] * len(opening)
            own += [message["role"] == "assistant"] * len(content) + [False] * len(newline)
        return ids, own

    def prompt_ids(self, messages: Conversation) -> list[int]:
        """Ids up to the place where the model answers."""
        return self.training_ids(messages)[0] + [START, *self.encode("model\n")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKPOINT / "tokenizer.model")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(train_tokenizer())


if __name__ == "__main__":
    main()
