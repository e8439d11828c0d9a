"""How a model's text is read and written: its vocabulary, the tokens added to it, and its chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentencepiece import SentencePieceProcessor

from rk_gemma.checkpoint.chattemplate import GEMMA, OFFICIAL, is_official, kind_of, template_text
from rk_gemma.checkpoint.rebuild import rebuilt
from rk_gemma.checkpoint.tokens import added_tokens, contradiction, extended, news
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma.checkpoint import Checkpoint

WISHES = ("auto", GEMMA, "none")
IDS_ONLY = "the bundle takes and gives token ids only"
GET_TOKENIZER = "copy tokenizer.model from the model that it was made from and export again, to ask it in words"


@dataclass(frozen=True)
class Text:
    """`vocabulary` is a SentencePiece model, empty for none; `tokenizer` None: the bundle takes ids only. `template`
    as in bundle.yaml; `jinja` is the same for programs that render Jinja, empty for none."""

    tokenizer: Tokenizer | None
    vocabulary: bytes
    template: str
    jinja: str


def read_text(checkpoint: Checkpoint, wish: str, warn: Callable[[str], None]) -> Text:
    """Read tokenizer and template; `wish` is one of WISHES. Raises CheckpointError, BundleError, UsageError."""
    directory = checkpoint.directory
    path, data = _vocabulary(checkpoint, wish, warn)
    if not data:
        if wish == GEMMA:
            raise UsageError(f"--chat-template gemma needs a tokenizer, and {directory} has none")
        return Text(None, b"", "none", "")
    processor = _processor(path, data)
    rows = checkpoint.spec.shape.vocab
    if processor.get_piece_size() > rows:
        raise CheckpointError(f"{path}: {processor.get_piece_size()} pieces, the model has {rows} rows")
    added = added_tokens(directory)
    other = directory / "tokenizer.json"
    where = contradiction(other, processor, added) if path != other else ""
    if where:  # transformers reads tokenizer.json first
        warn(f"{other}: not the same tokenizer as {path.name}, which is taken: {where}; remove the wrong one")
    fresh = news(processor, added)
    if fresh:
        data = extended(path, data, fresh, rows)
        shown = ", ".join(f"{token.content} ({number})" for number, token in list(fresh.items())[:4])
        more = f" and {len(fresh) - 4} more" if len(fresh) > 4 else ""
        warn(f"{directory}: added tokens are taken into tokenizer.model: {shown}{more}")
    jinja = checkpoint.inside.jinja if checkpoint.inside else template_text(directory)
    template = _template(directory, kind_of(jinja, [token.content for token in fresh.values()]), wish, warn)
    if template == "none":
        return Text(None, data, template, jinja)
    if not is_official(jinja):
        warn(f"{directory}: its chat template is not Gemma's word for word; the runtime renders Gemma's own")
    return Text(Tokenizer.parse(data, path), data, template, OFFICIAL)


def _vocabulary(checkpoint: Checkpoint, wish: str, warn: Callable[[str], None]) -> tuple[Path, bytes]:
    """Read tokenizer.model, or make it of tokenizer.json."""
    if checkpoint.inside:
        if not checkpoint.inside.vocabulary:
            warn(f"{checkpoint.directory}: its vocabulary is numbers, not text; {IDS_ONLY}")
        return checkpoint.directory, checkpoint.inside.vocabulary
    path = checkpoint.directory / "tokenizer.json"
    if checkpoint.tokenizer is not None:
        return checkpoint.tokenizer, _read(checkpoint.tokenizer)
    if not path.is_file():
        advice = "" if wish == "none" else f"; {GET_TOKENIZER}"
        warn(f"{checkpoint.directory}: no tokenizer.model; {IDS_ONLY}{advice}")
        return path, b""
    try:
        data = rebuilt(path)
    except CheckpointError as error:
        if wish != "none":
            raise CheckpointError(f"{error}, or export for token ids with --chat-template none") from error
        warn(f"{error}; {IDS_ONLY}")
        return path, b""
    warn(f"{path}: no tokenizer.model; it was made from tokenizer.json, and reads sample texts the same")
    return path, data


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise CheckpointError(f"{path}: empty; download it again")
    return data


def _processor(path: Path, data: bytes) -> SentencePieceProcessor:
    try:
        return SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: not a SentencePiece model (damaged, or another format)") from error


def _template(directory: Path, kind: str, wish: str, warn: Callable[[str], None]) -> str:
    """Decide on the template of the bundle. A checkpoint that says nothing is taken for a Gemma."""
    if wish == "none":
        warn(f"{directory}: --chat-template none: {IDS_ONLY}")
        return wish
    if kind in ("", GEMMA):
        return GEMMA
    if wish == GEMMA:
        warn(f"{directory}: its chat template is {kind}; Gemma's is used, as asked")
        return GEMMA
    raise CheckpointError(
        f"{directory}: its chat template is {kind}, and the runtime renders Gemma's; export for token ids with"
        " --chat-template none, or with --chat-template gemma if it was trained on Gemma's turns too"
    )
