"""The protocol between supervisor and worker, without I/O: messages in, bytes out, and back.

A frame is a u32 length and that many bytes: one for the kind, then the payload. Tokens are packed, one or many to a
frame; all else is JSON with token ids as lists. A frame that breaks these rules is a WireError, never an end of
stream; what is missing of a frame when the stream ends is lost with the worker. Described in docs/wire.md.
"""

from __future__ import annotations

import json
import struct
from array import array
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import WireError
from rk_gemma_runtime.jobs import Finish, Request, RowsRequest, Sampling, Setup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FRAME_LIMIT = 1 << 28
# A mark is a line that the worker prints among the library's, MARK and a number, before it reports the end of a job:
# the parent can tell which were printed by when.
MARK = "\x1e"
_HEAD = struct.Struct("<IB")
_TOKENS = struct.Struct("<IBI")


@dataclass(frozen=True)
class Load:
    """Parent: make the engine. `kind` is npu or cpu."""

    kind: str
    setup: Setup


@dataclass(frozen=True)
class Loaded:
    """Worker: the engine is ready. `files_before` and `files`: its soft limit of open files as it was and as it
    is. `sampling_per_run`: requests may have another sampling than the Setup."""

    version: str
    files_before: int = 0
    files: int = 0
    sampling_per_run: bool = True


@dataclass(frozen=True)
class Progress:
    """Worker: a sign of life before there are tokens. Bytes that a load has read (job 0), else tokens of the prompt
    that were read."""

    number: int
    done: int
    total: int


@dataclass(frozen=True)
class Generate:
    """Parent: generate. `number` names the job in everything that concerns it."""

    number: int
    request: Request


@dataclass(frozen=True)
class Logits:
    """Parent: logits or hidden states of every position."""

    number: int
    request: RowsRequest


@dataclass(frozen=True)
class Abort:
    """Parent: stop job `number`; without effect if it has ended."""

    number: int


@dataclass(frozen=True)
class Reset:
    """Parent: forget cached prompts."""

    number: int


@dataclass(frozen=True)
class Ping:
    """Parent: are you there?"""

    number: int


@dataclass(frozen=True)
class Pong:
    """Worker: yes; `progress` counts tokens since the start."""

    number: int
    progress: int


@dataclass(frozen=True)
class Tokens:
    """Worker: one token or, in a burst, several. A negative id -1-b is a byte b whose piece id the engine was not
    told. Their text is for the parent to make, which has the bundle's tokenizer."""

    number: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Worker: some rows of logits or hidden states, float32."""

    number: int
    rows: int
    data: bytes


@dataclass(frozen=True)
class Done:
    """Worker: job `number` ended. `finish` is None for a reset and for logits."""

    number: int
    finish: Finish | None


@dataclass(frozen=True)
class Failed:
    """Worker: job `number` (0: the load) failed. `error` is a class of errors.py."""

    number: int
    error: str
    message: str
    reason: str


@dataclass(frozen=True)
class Noticed:
    """Worker: what a person should know of an engine that works all the same."""

    number: int
    cause: str
    text: str


@dataclass(frozen=True)
class Heard:
    """Worker: an id and the text that the engine gave for it, in hex: another tokenizer would say otherwise."""

    number: int
    token: int
    text: str


Message = (
    Load | Loaded | Generate | Logits | Abort | Reset | Ping | Pong | Tokens | Rows | Done | Failed | Progress |
    Noticed | Heard
)  # fmt: skip
_KINDS: tuple[type[Any], ...] = (
    Tokens, Load, Loaded, Generate, Logits, Abort, Reset, Ping, Pong, Rows, Done, Failed, Progress, Noticed, Heard,
)  # fmt: skip
_NUMBER = {kind: number for number, kind in enumerate(_KINDS)}
TOKENS_KIND = _NUMBER[Tokens]


def mark_of(job: int) -> int:
    """The number of the mark before the end of a job; of the load, which is job 0."""
    return job + 1


def encode_tokens(number: int, ids: Sequence[int]) -> bytes:
    """The frame of Tokens, without making one: the hot path of the worker."""
    return _TOKENS.pack(5 + 4 * len(ids), TOKENS_KIND, number) + array("i", ids).tobytes()


def encode(message: Message) -> bytes:
    """The frame of a message."""
    if isinstance(message, Tokens):
        return encode_tokens(message.number, message.ids)
    if isinstance(message, Rows):
        body = struct.pack("<II", message.number, message.rows) + message.data
    else:
        body = json.dumps(asdict(message), separators=(",", ":")).encode()
    return _HEAD.pack(1 + len(body), _NUMBER[type(message)]) + body


class Decoder:
    """Bytes in any portions become messages. Raises WireError on a frame that cannot be."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Messages completed by `data`. The iterator must be drained or closed before the next call."""
        buffer = self._buffer
        buffer += data
        if len(buffer) >= 5 and len(buffer) < 4 + _HEAD.unpack_from(buffer)[0] <= 4 + FRAME_LIMIT:
            return  # a long frame on its way is not copied for each of its parts
        view, at, size = bytes(buffer), 0, len(buffer)
        try:
            while size - at >= 5:
                length, kind = _HEAD.unpack_from(view, at)
                if not 1 <= length <= FRAME_LIMIT:
                    raise WireError(f"a frame of {length} bytes")
                if size - at < 4 + length:
                    return
                body, at = view[at + 5 : at + 4 + length], at + 4 + length
                yield _decode(kind, body)
        finally:
            del buffer[:at]


def _tokens(body: bytes) -> Tokens:
    """Job and ids; these in the machine's own byte order, for both ends are on it."""
    (number,) = struct.unpack_from("<I", body)
    ids = array("i", body[4:])
    if not ids:
        raise WireError("a frame of no tokens")
    return Tokens(number, tuple(ids))


def _decode(kind: int, body: bytes) -> Message:
    try:
        if kind == TOKENS_KIND:
            return _tokens(body)
        if kind >= len(_KINDS):
            raise WireError(f"a frame of unknown kind {kind}")
        if _KINDS[kind] is Rows:
            number, rows = struct.unpack_from("<II", body)
            return Rows(number, rows, body[8:])
        return _build(_KINDS[kind], json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise WireError(f"a damaged frame of kind {kind}: {error!r}") from error


def _build(kind: type[Any], tree: dict[str, Any]) -> Message:
    if set(tree) != {f.name for f in fields(kind)}:
        raise WireError(f"a {kind.__name__} frame with fields {sorted(tree)}")
    if kind is Load:
        setup = tree["setup"]
        adapters = tuple((name, path) for name, path in setup["adapters"])
        own = {"adapters": adapters, "sampling": Sampling(**setup["sampling"]), "prove": tuple(setup["prove"])}
        return Load(tree["kind"], Setup(**{**setup, **own}))
    if kind is Generate:
        r = tree["request"]
        ids, stop, sampling = tuple(r["ids"]), tuple(r["stop"]), Sampling(**r["sampling"])
        return Generate(tree["number"], Request(**{**r, "ids": ids, "stop": stop, "sampling": sampling}))
    if kind is Done:
        return Done(tree["number"], Finish(**tree["finish"]) if tree["finish"] else None)
    if kind is Logits:
        rows = tree["request"]
        return Logits(tree["number"], RowsRequest(**{**rows, "ids": tuple(rows["ids"])}))
    message: Message = kind(**tree)
    return message
