"""What was read of an `.rkllm`, each value with where it came from and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HIGH, MEDIUM, LOW = "high", "medium", "low"


@dataclass(frozen=True)
class Value:
    """`origin`: where in the file it stands; `sure`: high, medium or low."""

    value: str | int | float | bool
    origin: str
    sure: str

    def tree(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"value": self.value, "from": self.origin, "sure": self.sure}

    def __str__(self) -> str:
        shown = ("yes" if self.value else "no") if isinstance(self.value, bool) else str(self.value)
        return f"{shown} ({self.origin}{'' if self.sure == HIGH else f'; {self.sure} confidence'})"


@dataclass(frozen=True)
class Row:
    """A key of the file for a report: `name` is empty where the mask is not known."""

    name: str
    masked: str
    type: str
    at: int
    shown: str
