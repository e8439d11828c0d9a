"""Deciding between what several sources claim: an option, the file itself, the card, a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T", str, int)


@dataclass(frozen=True)
class Claim(Generic[T]):
    """What one source says; an empty value or 0 says nothing. `origin` for people: "the file", "its name"."""

    value: T
    origin: str


@dataclass(frozen=True)
class Settled(Generic[T]):
    """The claim that goes before the others; its value is empty or 0 where nobody said anything."""

    value: T
    origin: str

    def __str__(self) -> str:
        return f"{self.value} ({self.origin})" if self.value else "not known"


@dataclass
class Settling:
    """Settles one field after the other, and keeps contradictions as sentences."""

    notes: list[str] = field(default_factory=list)

    def settle(self, what: str, claims: Iterable[Claim[T]], nothing: T) -> Settled[T]:
        """Take the first claim that says something; note the others that differ."""
        said = [claim for claim in claims if claim.value]
        if not said:
            return Settled(nothing, "")
        first = said[0]
        for other in said[1:]:
            if other.value != first.value:
                note = f"{what}: {other.origin} says {other.value}, {first.origin} {first.value}"
                if note not in self.notes:
                    self.notes.append(note)
        return Settled(first.value, first.origin)
