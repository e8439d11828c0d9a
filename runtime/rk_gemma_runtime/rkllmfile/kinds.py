"""What a file is by its first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.source import Source

HEAD = 4096
PAGES = ("html", "json", "lfs_pointer")  # what a server sends in place of a file
LONGEST_INDEX = 100_000_000  # what the safetensors library itself takes
MAGIC = bytes.fromhex("daeeb336")  # seen at the head of files of toolkits 1.3.0 and 1.3.1
ADVICE = {
    "gguf": "put it into a bundle as its CPU weights",
    "lfs_pointer": "download the file itself (its link has /resolve/ where this one has /raw/; `git lfs pull`)",
    "html": "download the file itself (its link has /resolve/ where this one has /blob/)",
    "json": "download it again; the answer says what was wrong",
    "zeros": "download it again",
    "empty": "download it again",
}
_BINARY = (
    (b"GGUF", "gguf", "a GGUF file, which llama.cpp runs on the CPU"),
    (b"RKNN", "other", "an .rknn file, which rknn-toolkit writes and librknnrt runs"),
    (b"RKLL", "other", "a file of rkllama's own converter, which no librkllmrt reads"),
    (b"PK\x03\x04", "other", "a zip archive (a wheel, or PyTorch's .bin)"),
    (b"\x7fELF", "other", "a program or library"),
    (b"\x1f\x8b", "other", "a gzip archive; unpack it first"),
    (b"\xfd7zXZ", "other", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "other", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf", "other", "a 7z archive; unpack it first"),
    (b"Rar!", "other", "a RAR archive; unpack it first"),
    (b"\x80\x02", "other", "a Python pickle"),
    (b"RKSIM", "other", "weights for the simulator (model.sim)"),
)
_TEXTS = (
    (re.compile(rb"version https://git-lfs"), "lfs_pointer", "a Git LFS pointer, not the weights"),
    (re.compile(rb"<!doctype|<html|<\?xml|<head", re.I), "html", "a web page that was saved as a file"),
    (re.compile(rb"[\[{]\s*[\"{}\]]"), "json", "a JSON answer that was saved as a file"),
    (re.compile(rb"entry not found|repository not found|invalid |access to |unauthorized|not found|forbidden", re.I),
     "other", "an error message that was saved as a file"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """`name`: rkllm, gguf, lfs_pointer, html, json, zeros, empty or other. `text` says it in words."""

    name: str
    text: str


def advice_for(kind: Kind) -> str:
    """Say what to do about a file that is not an `.rkllm`."""
    return ADVICE.get(kind.name, "give an .rkllm")


def foreign_kind(source: Source) -> Kind | None:
    """Recognise a file that is not an `.rkllm`; None if nothing speaks against one."""
    if not source.size:
        return Kind("empty", "an empty file")
    head = source.read(0, HEAD)
    if not any(head):
        return Kind("zeros", "zeros from its first byte on (a download that was never filled)")
    if head.startswith(MAGIC):  # the counts behind it may look like anything
        return None
    for magic, name, text in _BINARY:
        if head.startswith(magic):
            return Kind(name, text)
    if _is_safetensors(head, source.size):
        return Kind("other", "a safetensors file")
    return _text_kind(head)


def _text_kind(head: bytes) -> Kind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name, text in _TEXTS:
        if pattern.match(start):
            return Kind(name, text + _details(name, start))
    if len(head) > 3 and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return Kind("other", f"text ({start[:40].decode('ascii')!r})")
    return None


def _details(name: str, text: bytes) -> str:
    if name == "lfs_pointer":
        size = re.search(rb"\nsize (\d{1,20})", text)
        return f"; the file itself has {int(size[1])} bytes" if size else ""
    title = re.search(rb"<title>([^<]{1,80})|\"(?:error|message)\"\s*:\s*\"([^\"]{1,80})", text, re.I)
    words = (title[1] or title[2]).decode("utf-8", "replace").strip() if title else ""
    return f" ({words!r})" if words else ""


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 9 and head[8:9] == b"{" and 2 <= length <= min(size, LONGEST_INDEX)
