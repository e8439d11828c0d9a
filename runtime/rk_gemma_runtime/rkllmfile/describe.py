"""What an `.rkllm` file is and says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.rkllmfile.keys import Keys
from rk_gemma_runtime.rkllmfile.kinds import MAGIC, Kind, foreign_kind
from rk_gemma_runtime.rkllmfile.layout import Outline, outline
from rk_gemma_runtime.rkllmfile.trailer import ends_in_zeros, toolkit_of
from rk_gemma_runtime.rkllmfile.values import HIGH, LOW, MEDIUM, Row, Value

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.source import Source

MIB = 1 << 20
LEAST = 600_000  # real exports of one-layer test models have 677,860 bytes and more
LIMITS = {"npu_cores": 16, "max_context": 1 << 20, "vocab": 1 << 24}  # far above what exists
LARGEST_SIZE = 1 << 24  # of a shape
PLATFORMS = {0: "RK3588"}
DTYPES = {1: "FP16"}
FIELDS = (
    "toolkit", "platform", "npu_cores", "max_context", "architecture", "vocab", "dtype", "tokenizer", "embedding",
)  # fmt: skip
_EMBEDDING = b"token_embd.weight"
_SHAPE = {"hidden": "embedding_length", "layers": "block_count", "heads": "attention.head_count",
          "kv_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
          "ffn": "feed_forward_length"}  # fmt: skip


@dataclass(frozen=True)
class Description:
    """`kind` as `kinds` has it; `whole`: yes, no or unknown, `end` says why. `fields` has FIELDS; `shape` is as in
    bundle.yaml, or empty; `eos` are the ids that end an answer; `notes` are contradictions and what could not be
    read. `rows` and `keys` are for reports, and for who reads on."""

    name: str
    bytes: int
    kind: Kind
    whole: str
    end: str
    fields: dict[str, Value | None]
    shape: dict[str, int]
    bos: int | None = None
    eos: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    keys: Keys | None = None

    def text(self, field: str) -> str:
        """The bare value of a field as text, empty where it is not known."""
        found = self.fields[field]
        return str(found.value) if found else ""

    def number(self, field: str) -> int:
        """The bare value of a field that is a number, 0 where it is not known."""
        found = self.fields[field]
        return int(found.value) if found and not isinstance(found.value, str) else 0

    @property
    def is_rkllm(self) -> bool:
        """Whether it is such a file at all, whole or not."""
        return self.kind.name == "rkllm"

    def tree(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        fields = {name: value.tree() if value else None for name, value in self.fields.items()}
        return {
            "file": self.name, "bytes": self.bytes, "kind": self.kind.name, "what": self.kind.text,
            "whole": self.whole, "end": self.end, **fields, "notes": list(self.notes),
        }  # fmt: skip


def describe(source: Source) -> Description:
    """Read what can be known. Reads a few MB of a file of any size."""
    foreign = foreign_kind(source)
    if foreign is not None:
        whole = "no" if foreign.name in {"empty", "zeros", "lfs_pointer", "html", "json"} else "unknown"
        return _bare(source, foreign, whole, foreign.text)
    found = outline(source)
    head = source.read(0, len(MAGIC))
    if found is None:
        if head == MAGIC:
            kind = Kind("rkllm", "an .rkllm file")
            if source.size < MIB:
                return _bare(source, kind, "no", f"it ends after {source.size} bytes")
            return _bare(source, kind, "unknown", "its format version is not a known one")
        return _unknown(source)
    keys = Keys(source, found)
    if keys.mask is None and found.magic != MAGIC:
        return _unknown(source)
    return _Reading(source, found, keys).description()


def _unknown(source: Source) -> Description:
    return _bare(source, Kind("other", "neither an .rkllm nor another known format"), "unknown", "")


def _bare(source: Source, kind: Kind, whole: str, end: str) -> Description:
    fields: dict[str, Value | None] = dict.fromkeys(FIELDS)
    toolkit = toolkit_of(source) if kind.name == "rkllm" else ""
    if toolkit:
        fields["toolkit"] = Value(toolkit, "trailer", HIGH)
    return Description(source.name, source.size, kind, whole, end, fields, {})


class _Reading:
    """One file that begins as an `.rkllm` does."""

    def __init__(self, source: Source, found: Outline, keys: Keys) -> None:
        self._source, self._found, self._keys = source, found, keys
        self._trailer = toolkit_of(source)
        self._notes: list[str] = []

    def description(self) -> Description:
        whole, end = self._whole()
        if self._found.fault:
            self._notes.append(f"not all of it could be read: {self._found.fault}")
        elif self._keys.mask is None:
            self._notes.append("its strings are masked in a way that is not known: details are unknown")
        if self._source.size < LEAST:
            self._notes.append(f"{self._source.size} bytes are less than any model has that could be used")
        fields = {name: self._possible(name, getattr(self, f"_{name}")()) for name in FIELDS}
        vocab = fields["vocab"]
        rows = int(vocab.value) if vocab else LIMITS["vocab"]
        bos, eos = self._ids("bos", rows), self._ids("eos", rows)
        return Description(
            self._source.name, self._source.size, Kind("rkllm", "an .rkllm file"), whole, end, fields, self._shape(),
            bos[0] if bos else None, eos, tuple(self._notes),
            tuple(self._keys.rows()), self._keys,
        )  # fmt: skip

    def _possible(self, field: str, value: Value | None) -> Value | None:
        """Return it, or None with a note for a number that no model has."""
        most = LIMITS.get(field)
        if value is None or most is None:
            return value
        if type(value.value) is int and 1 <= value.value <= most:
            return value
        self._notes.append(f"its {field} of {value.value} ({value.origin}) is not from 1 to {most}: left out")
        return None

    def _ids(self, name: str, rows: int) -> tuple[int, ...]:
        """Return the ids that a vocabulary of so many tokens has, with a note of the others."""
        given = self._keys.numbers(f"tokenizer.ggml.{name}_token_id")
        odd = [number for number in given if not 0 <= number < rows]
        if odd:
            self._notes.append(f"its {name} id {odd[0]} is not from 0 to {rows - 1}: left out")
        return tuple(number for number in given if number not in odd)

    def _whole(self) -> tuple[str, str]:
        if self._found.cut and not self._trailer:
            return "no", f"it was cut: {self._found.fault}"
        if self._trailer:
            if self._found.cut:
                return "unknown", f"its end is there, but {self._found.fault}"
            return "yes", "its end is there; only a sha256 proves the middle"
        if ends_in_zeros(self._source):
            return "no", "its last 4 KiB are zeros: a download that was not finished"
        return "unknown", "no trailer: it was cut, or written by a toolkit whose trailer is not known"

    def _toolkit(self) -> Value | None:
        stated = self._keys.string("rkllm.version")
        if not self._trailer:
            return Value(stated, "key rkllm.version", HIGH) if stated else None
        if stated and stated != self._trailer:
            self._notes.append(f"its trailer says toolkit {self._trailer}, its key rkllm.version {stated}")
            return Value(self._trailer, "trailer", MEDIUM)
        return Value(self._trailer, "trailer", HIGH)

    def _platform(self) -> Value | None:
        return self._code("rkllm.platform", PLATFORMS)

    def _dtype(self) -> Value | None:
        return self._code("general.file_type", DTYPES)

    def _code(self, key: str, names: dict[int, str]) -> Value | None:
        code = self._keys.number(key)
        if not isinstance(code, int):
            return None
        if code in names:
            return Value(names[code], f"key {key}", HIGH)
        return Value(f"unknown code {int(code)}", f"key {key}", LOW)

    def _npu_cores(self) -> Value | None:
        return self._keys.value("rkllm.core_num")

    def _max_context(self) -> Value | None:
        return self._keys.value("rkllm.max_context")

    def _architecture(self) -> Value | None:
        name = self._keys.string("general.architecture")
        if name == "custom":
            name = self._keys.string("rkllm.model_name") or name
        return Value(name, "key general.architecture", HIGH) if name else None

    def _vocab(self) -> Value | None:
        tokens = self._keys.array("tokenizer.ggml.tokens")
        architecture = self._keys.string("general.architecture") or ""
        stated = self._keys.value(f"{architecture}.vocab_size")
        rows = self._rows()
        if tokens is not None:
            others = {"the key": stated.value if stated else tokens.length, "the embedding": rows or tokens.length}
            for name, count in others.items():
                if count != tokens.length:
                    self._notes.append(f"its tokenizer has {tokens.length} tokens, {name} says {count}")
            return Value(tokens.length, "key tokenizer.ggml.tokens", HIGH)
        return stated or (Value(rows, "rows of the embedding", MEDIUM) if rows else None)

    def _rows(self) -> int:
        mask = self._keys.mask
        for tensor in self._found.tensors if mask else ():
            if len(tensor.name) == len(_EMBEDDING) and mask and mask.clear(tensor.name) == _EMBEDDING:
                return tensor.dims[-1] if len(tensor.dims) > 1 else 0
        return 0

    def _tokenizer(self) -> Value | None:
        stated = self._keys.number("rkllm.has_tokenizer")
        if stated is not None:
            return Value(bool(stated), "key rkllm.has_tokenizer", HIGH)
        return Value(True, "key tokenizer.ggml.tokens", MEDIUM) if self._keys.has("tokenizer.ggml.tokens") else None

    def _embedding(self) -> Value | None:
        stated = self._keys.number("rkllm.has_embedding")
        if stated is not None:
            return Value(bool(stated), "key rkllm.has_embedding", HIGH)
        return Value(True, "the directory of tensors", MEDIUM) if self._rows() else None

    def _shape(self) -> dict[str, int]:
        """All sizes, or none if one is missing or a size that no model has."""
        architecture = self._keys.string("general.architecture") or ""
        found = {name: self._keys.numbers(f"{architecture}.{key}") for name, key in _SHAPE.items()}
        if not all(found.values()):
            return {}
        sizes = {name: value[0] for name, value in found.items()}
        odd = [f"{name} {size}" for name, size in sizes.items() if not 1 <= size <= LARGEST_SIZE]
        if odd:
            self._notes.append(f"its shape has {', '.join(odd)}, not from 1 to {LARGEST_SIZE}: left out")
        return {} if odd else sizes
