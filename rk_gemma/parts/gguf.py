"""What a GGUF file says of itself: read from its head, as files at hand and on the hub are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.parts.ggmltypes import QUANTS, UNKNOWN_QUANT, tensor_bytes
from rk_gemma_runtime.errors import InputError
from rk_gemma_runtime.rkllmfile.keys import Keys
from rk_gemma_runtime.rkllmfile.kinds import foreign_kind
from rk_gemma_runtime.rkllmfile.layout import outline

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.layout import Outline
    from rk_gemma_runtime.rkllmfile.source import Source

TURN = "<start_of_turn>"
TEMPLATE_BYTES = 1 << 16
_SIZES = {"hidden": "embedding_length", "layers": "block_count", "heads": "attention.head_count",
          "kv_heads": "attention.head_count_kv", "ffn": "feed_forward_length"}  # fmt: skip


@dataclass(frozen=True)
class GgufFacts:
    """`kind`: model, adapter, or another word of general.type. `template`: gemma, other or empty for none. `shape` as
    in bundle.yaml, or empty. `shards` 0 for a file that is not split. `needed`: bytes that the file must have."""

    name: str
    architecture: str
    kind: str
    title: str
    quant: str
    vocab: int
    context: int
    shape: dict[str, int]
    bos: int | None
    eos: tuple[int, ...]
    template: str
    shards: int
    needed: int
    keys: Keys


def read_gguf(source: Source) -> GgufFacts:
    """Read the head. Raises InputError for another kind of file, and for one that is damaged or cut."""
    kind = foreign_kind(source)
    if kind is None or kind.name != "gguf":
        raise InputError(f"{source.name}: not a GGUF: {kind.text if kind else 'not a known format'}")
    found = outline(source)
    if found is None:
        raise InputError(f"{source.name}: a GGUF of a version that is not known; convert it with a newer llama.cpp")
    if found.fault:
        advice = "download it again" if found.cut else "damaged, or not made by llama.cpp"
        raise InputError(f"{source.name}: {found.fault}; {advice}")
    facts = _facts(source, found, Keys(source, found))
    if source.size < facts.needed:
        raise InputError(f"{source.name}: {source.size} bytes of {facts.needed}; download it again")
    return facts


def _facts(source: Source, found: Outline, keys: Keys) -> GgufFacts:
    architecture = keys.string("general.architecture") or ""
    tokens = keys.array("tokenizer.ggml.tokens")
    rows = next((t.dims[-1] for t in found.tensors if t.name == b"token_embd.weight" and len(t.dims) == 2), 0)
    rows = tokens.length if tokens else rows
    bos = keys.numbers("tokenizer.ggml.bos_token_id")
    context = keys.numbers(f"{architecture}.context_length")
    shards = keys.numbers("split.count")
    return GgufFacts(
        source.name, architecture, keys.string("general.type") or "model", keys.string("general.name") or "",
        _quant(keys), rows, context[0] if context else 0, _shape(keys, architecture),
        bos[0] if bos and bos[0] < (rows or bos[0] + 1) else None, _ends(keys, rows),
        _template(source, keys), shards[0] if shards else 0,
        _needed(found, keys), keys,
    )  # fmt: skip


def _quant(keys: Keys) -> str:
    kind = keys.number("general.file_type")
    return QUANTS.get(int(kind) % UNKNOWN_QUANT, "") if isinstance(kind, int) else ""


def _shape(keys: Keys, architecture: str) -> dict[str, int]:
    found = {name: keys.numbers(f"{architecture}.{key}") for name, key in _SIZES.items()}
    if not all(found.values()):
        return {}
    shape = {name: value[0] for name, value in found.items()}
    width = keys.numbers(f"{architecture}.attention.key_length")
    return shape | {"head_dim": width[0] if width else shape["hidden"] // max(1, shape["heads"])}


def _ends(keys: Keys, vocab: int) -> tuple[int, ...]:
    """Return the ids that end an answer; those that the vocabulary does not have are passed over."""
    names = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    found = dict.fromkeys(number for name in names for number in keys.numbers(name))
    return tuple(number for number in found if 0 <= number < (vocab or number + 1))


def _template(source: Source, keys: Keys) -> str:
    entry = keys.entry("tokenizer.chat_template")
    if entry is None or not entry.length:
        return ""
    text = source.read(entry.at, min(entry.length, TEMPLATE_BYTES))
    return "gemma" if TURN.encode() in text else "other"


def _needed(found: Outline, keys: Keys) -> int:
    """Where the last tensor ends."""
    step = (keys.numbers("general.alignment") or (32,))[0] or 32
    start = -(-found.end // step) * step
    return max((start + t.offset + tensor_bytes(t.type, t.dims) for t in found.tensors), default=found.end)
