"""The keys of an `.rkllm` by name, as far as the mask can be found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.rkllmfile import known
from rk_gemma_runtime.rkllmfile.layout import ARRAY, NUMBERS, PERIOD, STRING, TYPE_NAMES, Entry, Outline
from rk_gemma_runtime.rkllmfile.mask import Mask, find_mask
from rk_gemma_runtime.rkllmfile.values import HIGH, Row, Value

if TYPE_CHECKING:
    from rk_gemma_runtime.rkllmfile.source import Source

SPACE_RUN = ("\u2581" * 31).encode()  # the longest token of a Gemma vocabulary
SHORT = 60
MOST_NUMBERS = 16


class Keys:
    """Looks keys up by name. `mask` is None where it could not be found: then there are none."""

    def __init__(self, source: Source, found: Outline) -> None:
        self._source, self._entries = source, found.entries
        self._names: dict[bytes, str] = {}
        self._by_name: dict[str, Entry] = {}
        ciphers = [entry.key for entry in found.entries]
        result = find_mask(found.magic, ciphers, ciphers[0]) if ciphers else None
        self.mask: Mask | None = result[0] if result else None
        if result and self.mask:
            self._index(result[1])
            architecture = self.string("general.architecture")
            if architecture:
                rest = [cipher for cipher in ciphers if cipher not in self._names]
                self._index(self.mask.learn_names(rest, known.of_architecture(architecture)))
            self._learn_tokens(self.mask)

    def string(self, name: str) -> str | None:
        """The value of a key that is a string; None if it is missing or cannot be read."""
        entry = self._by_name.get(name)
        if entry is None or entry.type != STRING or self.mask is None or entry.length > PERIOD:
            return None
        return self.mask.text(self._source.read(entry.at, entry.length))

    def number(self, name: str) -> int | float | bool | None:
        """The value of a key that is a number or a truth; of a short array of numbers the first."""
        entry = self._by_name.get(name)
        return entry.number if entry else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """The values of a key that is a whole number or a short array of them."""
        entry = self._by_name.get(name)
        if entry is None:
            return ()
        form = NUMBERS.get(entry.of)
        if entry.type == ARRAY and form is not None and entry.length <= MOST_NUMBERS:
            data = self._source.read(entry.at, entry.length * form.size)
            whole = [value for (value,) in form.iter_unpack(data[: len(data) // form.size * form.size])]
            return tuple(int(value) for value in whole if isinstance(value, int))
        return (int(entry.number),) if isinstance(entry.number, int) else ()

    def entry(self, name: str) -> Entry | None:
        """Where a value lies."""
        return self._by_name.get(name)

    def array(self, name: str) -> Entry | None:
        """Where an array lies."""
        entry = self._by_name.get(name)
        return entry if entry and entry.type == ARRAY else None

    def value(self, name: str) -> Value | None:
        """A whole number or a truth with where it stands."""
        number = self.number(name)
        return Value(number, f"key {name}", HIGH) if isinstance(number, int) else None

    def has(self, name: str) -> bool:
        """Whether there is such a key."""
        return name in self._by_name

    def rows(self) -> list[Row]:
        """All keys in the order of the file, for a report."""
        return [self._row(entry) for entry in self._entries]

    def _index(self, names: dict[bytes, str]) -> None:
        self._names |= names
        for entry in self._entries:
            name = self._names.get(entry.key)
            if name is not None:
                self._by_name.setdefault(name, entry)

    def _learn_tokens(self, mask: Mask) -> None:
        tokens = self.array("tokenizer.ggml.tokens")
        if tokens is None or tokens.longest[1] != len(SPACE_RUN):
            return
        cipher = self._source.read(*tokens.longest)
        if len(cipher) == len(SPACE_RUN) and mask.fits(cipher, SPACE_RUN):
            mask.learn(cipher, SPACE_RUN)

    def _row(self, entry: Entry) -> Row:
        name = self._names.get(entry.key) or (self.mask.text(entry.key) if self.mask else "") or ""
        kind = TYPE_NAMES[entry.type]
        if entry.type == ARRAY:
            return Row(name, entry.key.hex(), f"array of {TYPE_NAMES[entry.of]}", entry.at, f"{entry.length} of them")
        if entry.type != STRING:
            return Row(name, entry.key.hex(), kind, entry.at, str(entry.number))
        text = self.string(name) if name else None
        shown = f"{entry.length} bytes" if text is None else repr(text[:SHORT])
        return Row(name, entry.key.hex(), kind, entry.at, shown)
