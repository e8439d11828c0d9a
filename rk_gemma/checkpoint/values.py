"""Numbers and ids of a checkpoint's JSON files, taken only as what they should be: "8", 8.5 and true are not 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 200  # letters of what a line quotes
LARGEST = 1e30  # files for engines hold float32


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def cut(text: object) -> str:
    """Return a text for an error line; a value from a damaged file may be of any length."""
    words = str(text)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."


def token_id(value: Any) -> int:
    """Return an id. Raises ValueError."""
    if not is_whole(value) or value < 0:
        raise ValueError(f"impossible id {value!r}")
    return int(value)


def plain_text(value: Any) -> str:
    """Return a text that files can hold. Raises ValueError for half a surrogate pair, a null or another type."""
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"impossible text {value!r}")
    return value


def real(config: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number, or `default` where the key is absent. Raises ValueError."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
        raise ValueError(f"impossible {key} {value!r}")
    return float(value)


def cap(config: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number that null switches off. Raises ValueError."""
    return 0.0 if config.get(key, default) is None else real(config, key, default)


def whole(config: Mapping[str, Any], key: str, default: int) -> int:
    """Return a whole number, or `default` where the key is absent or null. Raises ValueError."""
    value = config.get(key)
    if value is None:
        return default
    if not is_whole(value):
        raise ValueError(f"impossible {key} {value!r}")
    return int(value)


def ids(config: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return a list of ids, for which one id may stand. `default` where there are none. Raises ValueError."""
    value = config.get(key)
    found = [i for i in (value if isinstance(value, list) else [value]) if i is not None]
    if not all(map(is_whole, found)):
        raise ValueError(f"impossible {key} {value!r}")
    return tuple(dict.fromkeys(found)) or default
