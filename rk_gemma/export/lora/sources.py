"""Which adapters to take along, and what each is called in the bundle."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rk_gemma_runtime.bundle import is_plain_name
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable

CPU_SUFFIX = ".lora.gguf"


@dataclass(frozen=True)
class LoraSource:
    """A PEFT directory and the adapter's name."""

    name: str
    directory: Path

    @classmethod
    def parse(cls, text: str) -> LoraSource:
        """Parse DIR or NAME=DIR; a directory whose own first part has a "=" is written ./DIR. Raises
        CheckpointError."""
        name, sign, directory = text.partition("=")
        if sign and "/" not in name:
            return cls(name, Path(directory))
        return cls(_name_of(Path(text)), Path(text))


def check_names(sources: Iterable[LoraSource], suffixes: Iterable[str]) -> None:
    """Raise CheckpointError for a name that, with each suffix, is not a plain file name, or that is given twice."""
    seen: set[str] = set()
    for source in sources:
        if not all(is_plain_name(source.name + suffix) for suffix in ("", *suffixes)):
            raise CheckpointError(
                f"adapter name {source.name!r} is not a plain file name; give NAME={source.directory} with letters"
                " and digits"
            )
        if source.name in seen:
            raise CheckpointError(
                f"two adapters are named {source.name}; give one another name: NAME={source.directory}"
            )
        seen.add(source.name)


def _name_of(directory: Path) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(os.path.abspath(directory)).name).strip("-.")
    if not plain:
        raise CheckpointError(f"{directory}: its name makes no adapter name; give NAME={directory}")
    return plain
