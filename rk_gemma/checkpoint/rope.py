"""Positions: Gemma 1 and 2 turn by plain angles. Configs say so, or name a scaling, in several ways.

transformers 5 reads `rope_scaling` as another name of `rope_parameters`; before, it held a scaling only. The kind
stands under `rope_type` or, in older files, `type`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.values import real

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES = ("rope_parameters", "rope_scaling")
LAYER_KINDS = {"full_attention", "sliding_attention"}
DEFAULT_THETA = 10000.0


def rope_theta(config: Mapping[str, Any]) -> float:
    """Return the base of the angles. Raises ValueError, which names the scaling, for angles that are not plain."""
    thetas = []
    for place in PLACES:
        for where, rope in _tables(place, config.get(place)):
            _check_plain(where, rope)
            thetas.append(_theta(rope))
    given = [theta for theta in (*thetas, _theta(config)) if theta is not None]
    if len({theta or DEFAULT_THETA for theta in thetas[:2]}) > 1 and _per_layer(config):
        raise ValueError("rope_parameters differ between kinds of layers, which is not Gemma 1 or 2")
    return given[0] if given else DEFAULT_THETA


def _theta(table: Mapping[str, Any]) -> float | None:
    return None if table.get("rope_theta") is None else real(table, "rope_theta", DEFAULT_THETA)


def _per_layer(config: Mapping[str, Any]) -> bool:
    return any(isinstance(config.get(place), dict) and LAYER_KINDS & config[place].keys() for place in PLACES)


def _tables(place: str, value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the table, or one for each kind of layer where they are told apart."""
    if not value:
        return []
    if not isinstance(value, dict):
        raise ValueError(f"{place} is not a JSON object")
    if not LAYER_KINDS & value.keys():
        return [(place, value)]
    inner = [(f"{place}.{kind}", table) for kind, table in value.items() if table]
    if not all(isinstance(table, dict) for _, table in inner):
        raise ValueError(f"{place} is not a table for each kind of layer")
    return inner


def _check_plain(where: str, rope: Mapping[str, Any]) -> None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    factor = rope.get("factor")
    plain = kind == "default" or (kind == "linear" and factor == 1)
    if not plain:
        by = f" by {factor}" if isinstance(factor, (int, float)) else ""
        raise ValueError(f"{where} has type {kind!r}{by}: Gemma 1 and 2 are exported with plain positions only")
    if rope.get("partial_rotary_factor") not in (None, 1):
        raise ValueError(f"{where} turns a part of each head only, which is not Gemma 1 or 2")
