"""The mask over an `.rkllm`'s strings, found from the strings themselves.

Every string is XOR-ed with the same bytes, beginning anew each time; lengths and numbers are plain. The magic is
"GGUF", which gives the first four bytes. A key of known length whose known bytes fit only one name gives more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rk_gemma_runtime.rkllmfile import known

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LENGTH = 256
_NAME = re.compile(rb"[A-Za-z0-9_.\-/?]*")


class Mask:
    """Bytes of the mask that are known; it repeats after 256."""

    def __init__(self, magic: bytes) -> None:
        """Begin with the file's first four bytes."""
        self._bytes: dict[int, int] = {}
        self.learn(magic, b"GGUF")

    @classmethod
    def none(cls) -> Mask:
        """Make the mask of a plain GGUF."""
        mask = cls(b"GGUF")
        mask.learn(bytes(LENGTH), bytes(LENGTH))
        return mask

    def __len__(self) -> int:
        """Count the bytes that are known."""
        return len(self._bytes)

    def known(self) -> bytes:
        """Return the mask as far as it is known from its beginning on."""
        end = next(place for place in range(LENGTH + 1) if place not in self._bytes)
        return bytes(self._bytes[place] for place in range(end))

    def reads(self, length: int) -> bool:
        """Whether a string of this length can be read whole."""
        return all(place in self._bytes for place in range(min(length, LENGTH)))

    def fits(self, cipher: bytes, plain: bytes) -> bool:
        """Whether `cipher` may be `plain`, as far as is known."""
        pairs = zip(cipher, plain, strict=True)
        return all(
            self._bytes.get(place % LENGTH, byte ^ clear) == byte ^ clear for place, (byte, clear) in enumerate(pairs)
        )

    def overlap(self, length: int) -> int:
        """Count the known bytes among the first `length`."""
        return sum(place in self._bytes for place in range(min(length, LENGTH)))

    def learn(self, cipher: bytes, plain: bytes) -> None:
        """Take `cipher` for `plain`."""
        for place, (byte, clear) in enumerate(zip(cipher, plain, strict=True)):
            self._bytes.setdefault(place % LENGTH, byte ^ clear)

    def text(self, cipher: bytes) -> str | None:
        """Read a string; None if the mask is not known that far, or it is not UTF-8."""
        if not self.reads(len(cipher)):
            return None
        try:
            return self.clear(cipher).decode("utf-8")
        except UnicodeDecodeError:
            return None

    def clear(self, cipher: bytes) -> bytes:
        """Take the mask off; bytes under its unknown part become "?"."""
        return bytes(
            byte ^ self._bytes[place % LENGTH] if place % LENGTH in self._bytes else ord("?")
            for place, byte in enumerate(cipher)
        )

    def learn_names(self, ciphers: Sequence[bytes], names: Iterable[str]) -> dict[bytes, str]:
        """Find which cipher is which name, the surest first, and learn from each."""
        plains: dict[int, set[bytes]] = {}
        for name in names:
            plains.setdefault(len(name), set()).add(name.encode())
        open_ones = {cipher for cipher in ciphers if len(cipher) in plains}
        found: dict[bytes, str] = {}
        while True:
            sure = []
            for cipher in open_ones:
                fitting = [plain for plain in plains[len(cipher)] if self.fits(cipher, plain)]
                if len(fitting) == 1:
                    sure.append((self.overlap(len(cipher)) / len(cipher), cipher, fitting[0]))
            if not sure:
                return found
            _, cipher, plain = max(sure)
            self.learn(cipher, plain)
            found[cipher] = plain.decode()
            open_ones.remove(cipher)
            plains[len(cipher)].remove(plain)

    def believable(self, ciphers: Sequence[bytes]) -> bool:
        """Whether all of these read as names of keys, as far as is known."""
        return all(_NAME.fullmatch(self.clear(cipher)) for cipher in ciphers)


def find_mask(magic: bytes, ciphers: Sequence[bytes], first: bytes = b"") -> tuple[Mask, dict[bytes, str]] | None:
    """Find mask and names of keys; `first` is the key at the head. None if nothing fits: another mask, or no keys."""
    if magic == b"GGUF":
        plain = Mask.none()
        return plain, {cipher: cipher.decode("utf-8", "replace") for cipher in ciphers}
    mask = Mask(magic)
    opening = known.GENERAL[0].encode()  # the first key of every file that was seen
    names: dict[bytes, str] = {}
    if len(first) == len(opening) and mask.fits(first, opening):
        mask.learn(first, opening)
        names[first] = opening.decode()
    names |= mask.learn_names(ciphers, known.ALL)
    return (mask, names) if names and mask.believable(ciphers) else None
