"""What a model card claims: its front matter, and sentences that people write about a conversion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from rk_gemma_runtime import plainyaml
from rk_gemma_runtime.bundle import YAML_FAULTS

LIMIT = 1 << 20
# Every repetition is bounded, or cannot be read in two ways: a card may be a megabyte of anything.
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.S)
_FRONT_LIMIT = 1 << 16
_GAP = r"[\s:*`]{0,8}"
_VERSION = r"v?\.?\s{0,2}(\d\.\d\.\d(?:b\d{1,3})?)(?![\d.]{0,8}\d)"
_TOOLKIT = (
    re.compile(rf"compatible with rkllm version:?\s{{0,8}}{_VERSION}", re.I),
    re.compile(rf"rkllm[-_ ]toolkit(?:\s{{1,8}}version)?{_GAP}{_VERSION}", re.I),
    re.compile(rf"converted (?:with|using|by) (?:the )?rkllm(?:[- ](?:runtime|toolkit))?\s{{0,8}}{_VERSION}", re.I),
    re.compile(rf"\(rkllm {_VERSION}\)", re.I),
    re.compile(rf"rkllm runtime(?:\s{{1,8}}version)?{_GAP}{_VERSION}", re.I),
)


@dataclass(frozen=True)
class CardFacts:
    """Empty where the card says nothing. `base` names the model that it was made of."""

    toolkit: str = ""
    base: str = ""
    licence: str = ""
    gated: bool = False


def read_card(text: str) -> CardFacts:
    """Read a README.md. What is not understood is passed over."""
    text = text[:LIMIT]
    front = _front(text)
    base = front.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    licence = front.get("license_name") or front.get("license")
    toolkit = next((found[1] for pattern in _TOOLKIT if (found := pattern.search(text))), "")
    return CardFacts(
        toolkit,
        base if isinstance(base, str) else "",
        licence if isinstance(licence, str) else "",
        "extra_gated_prompt" in front or "extra_gated_heading" in front,
    )


def _front(text: str) -> dict[str, Any]:
    found = _FRONT.match(text.replace("\r\n", "\n"))
    if found is None or len(found[1]) > _FRONT_LIMIT:
        return {}
    try:
        tree = plainyaml.load(found[1])
    except (*YAML_FAULTS, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}
