"""Numbers and ids of a checkpoint's JSON files, taken only as what they should be: "8", 8.5 and true are not 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def real(config: Mapping[str, Any], key: str, default: float) -> float:
    """Return a number, or `default` where the key is absent. Raises ValueError."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
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
