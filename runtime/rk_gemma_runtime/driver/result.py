"""What a probe answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Result:
    """As the doctor reads it; bytes. `..._exact` False: RAM or time ended the search, the number is a lower bound."""

    domain: int
    flags: int = 0
    largest: int | None = None
    largest_exact: bool = False
    free: int | None = None
    free_exact: bool = False
    alignment: str | None = None
    multi_domain: bool | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def tree(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
