"""Values read from files: parsed strictly. What fails is noted; nothing is guessed and nothing is raised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from rk_gemma_runtime.doctor.root import ABSENT, CannotRead, Unreadable
from rk_gemma_runtime.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from rk_gemma_runtime.doctor.root import Root

T = TypeVar("T")
QUOTED = 60
NUMBER = re.compile(r"[0-9]{1,18}")
SIGNED = re.compile(r"-?[0-9]{1,18}")


class Reader:
    """Reads from a root and keeps what could not be read in `unreadable`."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.unreadable: list[Unreadable] = []

    def text(self, name: str, needed: bool = True) -> str | None:
        """Read a text file; None if it cannot be read. A missing file is noted only if `needed`."""
        try:
            return _text(self.root.read(name))
        except CannotRead as error:
            if needed or str(error) != ABSENT:
                self.complain(name, str(error))
        except ValueError as error:
            self.complain(name, str(error))
        return None

    def value(self, name: str, parse: Callable[[str], T], needed: bool = True) -> T | None:
        """Parse a text file; the ValueError of `parse` becomes the reason why there is no value."""
        text = self.text(name, needed)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.complain(name, str(error))
            return None

    def absent(self, name: str) -> bool:
        """Whether a file that was asked for is known not to be there."""
        return self.root.faults.get(name) == ABSENT

    def complain(self, name: str, why: str) -> None:
        """Note why a file was of no use."""
        path = name if name.startswith("rk-gemma/") else f"/{name}"
        if all((u.path, u.why) != (path, why) for u in self.unreadable):
            self.unreadable.append(Unreadable(path, why))


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not text") from None
    # A device tree's strings end in NUL; the kernel writes nothing else below a blank.
    if re.search(r"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]", text):
        raise ValueError("not text")
    return text


def quote(text: str) -> str:
    """Quote the beginning of a text, on one line."""
    line = one_line(text.strip()[:QUOTED])
    return repr(line) if line else "empty"


def word(text: str) -> str:
    """Parse one word. Raises ValueError."""
    found = text.strip()
    if not found or len(found.split()) != 1 or "\0" in found:
        raise ValueError(f"{quote(text)} is not one word")
    return found


def number(text: str) -> int:
    """Parse a whole number that is not negative. Raises ValueError."""
    if not NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{quote(text)} is not a number")
    return int(text)


def signed(text: str) -> int:
    """Parse a whole number. Raises ValueError."""
    if not SIGNED.fullmatch(text.strip()):
        raise ValueError(f"{quote(text)} is not a number")
    return int(text)


def cpu_list(text: str) -> tuple[int, ...]:
    """Parse a set of CPUs as the kernel writes it, `0-3,6`. Raises ValueError."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        low, high = number(first), number(last) if dash else number(first)
        if not low <= high < 4096:
            raise ValueError(f"{quote(text)} is not a list of CPUs")
        found += range(low, high + 1)
    return tuple(found)
