"""What librkllmrt up to 1.1.4 prints of a file that is not an `.rkllm`: its first four bytes, as a log shows them.

The library takes the mask of `.rkllm` files off before it prints them, so even plain text looks like noise. A log may
hold them as they were, as escapes, or with signs in place of what was not UTF-8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = bytes(a ^ b for a, b in zip(bytes.fromhex("daeeb336"), b"GGUF", strict=True))
# What lies on disks in place of an `.rkllm`.
HEADS = (
    bytes(4), b"vers", b"<!DO", b"<!do", b"<!Do", b"<htm", b"<HTM", b"<hea", b"<HEA", b"<?xm", b"<bod",
    b'{"er', b'{"me', b'{"de', b'{"st', b'{\n  ', b"Entr", b"Repo", b"Inva", b"Acce", b"Not ", b"Forb", b"Unau",
    b"Bad ", b"Erro", b"Gate", b"GGUF", b"RKNN", b"RKLL", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x08",
    b"\xfd7zX", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!", b"\x7fELF",
)  # fmt: skip
_SAYS = re.compile(rb"invalid magic characters[:\s]{0,4}(?:'|\"|`|\xe2\x80\x98|&#39;|\\')?(.{3,64})", re.I | re.S)
_END = ("'", '"', "`", "\u2019", "&#39;")
_CARET = r"M-\^.|M-.|\^."
_ESCAPE = re.compile(
    rf"\\x([0-9a-f]{{2}})|<([0-9a-f]{{2}})>|%([0-9a-f]{{2}})|[\\#]([0-3][0-7]{{2}})|({_CARET})|(.)", re.I | re.S
)
_UNICODE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPED_CONTROL = re.compile(r"\\x([01][0-9a-fA-F])|[\\#](0[0-3][0-7])|\^([@-_])")
_LONE = re.compile(r"[\ud800-\udfff]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def first_word(raw: bytes) -> bytes | None:
    """Find what the file of such a line begins with; None for another line, or where that cannot be told."""
    said = _SAYS.search(raw)
    if said is None:
        return None
    text = said[1].decode("utf-8", "replace").replace("\\\\", "\\")
    text = _UNICODE.sub(lambda found: chr(int(found[1], 16)), text)
    read = (word for word in _readings(said[1], text) if word in HEADS)
    return next(read, None) or _head_shown_as(text)


def number_of(word: bytes) -> str:
    """Write the word as newer runtimes do in `invalid magic number, got`."""
    return f"{int.from_bytes(word, 'little'):08x}"


def _readings(said: bytes, text: str) -> Iterator[bytes]:
    """The four bytes as they may be meant: raw, escaped, or taken for Latin letters."""
    yield _unmasked(said[:4])
    yield _unmasked(_unescaped(text))
    for charset in ("latin-1", "cp1252"):
        yield _unmasked(b"".join(_letter(letter, charset) for letter in text[:4]))


def _unmasked(four: bytes) -> bytes:
    return bytes(byte ^ mask for byte, mask in zip(four, MASK, strict=False))


def _unescaped(text: str) -> bytes:
    """Read \\xHH, <HH>, %HH, octal with a backslash or #, and what `cat -v` writes; the rest as it stands."""
    found = b""
    for escape in _ESCAPE.finditer(text):
        if len(found) >= 4:
            break
        hexes = escape[1] or escape[2] or escape[3]
        if hexes or escape[4]:
            found += bytes([int(hexes, 16) if hexes else int(escape[4], 8)])
        else:
            found += bytes([_caret(escape[5])]) if escape[5] else escape[6].encode("utf-8", "replace")
    return found[:4]


def _caret(shown: str) -> int:
    high = 0x80 if shown.startswith("M-") else 0
    rest = shown.removeprefix("M-")
    low = ord(rest[1]) ^ 0x40 if len(rest) == 2 else ord(rest)
    return (high | low) & 0xFF


def _letter(letter: str, charset: str) -> bytes:
    """Encode a letter; control characters mean themselves in any charset."""
    return bytes([ord(letter)]) if ord(letter) < 0xA0 else letter.encode(charset, "replace")


def _head_shown_as(text: str) -> bytes | None:
    """Find the head whose bytes look like that once they were decoded, with or without their control characters."""
    ends = [text.partition(end)[0] for end in _END if end in text]
    shown = _ESCAPED_CONTROL.sub(_control, min(ends, default=text, key=len))
    for form in (str, _as_blanks, _without_controls):
        wanted = form(shown).rstrip()
        for head in () if wanted.isascii() else HEADS:
            if any(wanted == form(decoded).rstrip() for decoded in _decodings(head)):
                return head
    return None


def _control(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16) if escape[1] else int(escape[2], 8) if escape[2] else ord(escape[3]) ^ 0x40)


def _decodings(head: bytes) -> tuple[str, str]:
    """One sign for each sequence that is cut short, as most decoders do, or for each of its bytes."""
    masked = _unmasked(head)
    return masked.decode("utf-8", "replace"), _LONE.sub("\ufffd", masked.decode("utf-8", "surrogateescape"))


def _as_blanks(text: str) -> str:
    return _CONTROLS.sub(" ", text)


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("", text)
