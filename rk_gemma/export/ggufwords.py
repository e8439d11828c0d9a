"""The vocabulary of model.gguf and the keys about text, as llama.cpp's own converter writes them.

The runtime sends ids and needs none of this. llama-server and Ollama do: with it they make the same ids of a
conversation, and end where the runtime ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf

if TYPE_CHECKING:
    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.model import Model

# llama.cpp takes this spelling for an end id; in Gemma it is HTML. Our prompts are ids and our text comes from
# tokenizer.model, so the spelling in the GGUF may differ.
FALSE_ENDS = {"</s>": "</s\u200b>"}


def add_vocabulary(writer: gguf.GGUFWriter, model: Model) -> None:
    """Add pieces, the ids with a meaning, and the chat template."""
    vocabulary = model.text.vocabulary
    pieces = _pieces(vocabulary, model.spec) if vocabulary else _numbers(model.spec)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p[0] for p in pieces])
    writer.add_token_scores([p[1] for p in pieces])
    writer.add_token_types([p[2] for p in pieces])
    writer.add_bos_token_id(model.spec.bos)
    _add_ends(writer, model)
    if vocabulary:
        _add_special(writer, vocabulary)
    writer.add_add_bos_token(bool(vocabulary))  # a Gemma's text begins with <bos>; numbers are not text
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if model.text.jinja:
        writer.add_chat_template(model.text.jinja)


def _add_ends(writer: gguf.GGUFWriter, model: Model) -> None:
    """Give each end id the key that llama.cpp has for its kind: <eos>, then the end of a turn, then one more."""
    tokenizer = model.tokenizer
    own = (tokenizer.eos, tokenizer.end_of_turn) if tokenizer else ()
    ends = [*(i for i in own if i in model.eos), *(i for i in model.eos if i not in own)]
    keys = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for token, add in zip(ends, keys, strict=False):
        add(token)


def _add_special(writer: gguf.GGUFWriter, vocabulary: bytes) -> None:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=vocabulary)
    for token, add in (
        (processor.pad_id(), writer.add_pad_token_id),
        (processor.unk_id(), writer.add_unk_token_id),
    ):
        if token >= 0:
            add(token)


def _pieces(vocabulary: bytes, spec: ModelSpec) -> list[tuple[bytes, float, int]]:
    from sentencepiece import sentencepiece_model_pb2 as sp

    proto = sp.ModelProto()
    proto.ParseFromString(vocabulary)
    control = {"<start_of_turn>", "<end_of_turn>"}
    kinds = gguf.TokenType  # SentencePiece's numbers are the same
    found = [
        (
            FALSE_ENDS.get(p.piece, p.piece).encode(),
            float(p.score),
            int(kinds.CONTROL if p.piece in control else p.type),
        )
        for p in proto.pieces
    ]
    unused = range(len(found), spec.shape.vocab)
    return found + [(f"<unused_row{i}>".encode(), -1e6, int(kinds.UNUSED)) for i in unused]


def _numbers(spec: ModelSpec) -> list[tuple[bytes, float, int]]:
    """Make a vocabulary for a checkpoint without one: every id prints nothing that could be taken for text."""
    kinds = gguf.TokenType
    return [(f"[{i}]".encode(), -float(i), int(kinds.NORMAL)) for i in range(spec.shape.vocab)]
