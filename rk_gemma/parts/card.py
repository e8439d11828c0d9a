"""What a model card claims: its front matter, and sentences that people write about a conversion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from rk_gemma_runtime import plainyaml
from rk_gemma_runtime.bundle import YAML_FAULTS

LIMIT = 1 << 20
_FRONT = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.S)
_VERSION = r"v?\.?\s*(\d\.\d\.\d(?:b\d+)?)(?![\d.]*\d)"
_TOOLKIT = (
    re.compile(rf"compatible with rkllm version:?\s*{_VERSION}", re.I),
    re.compile(rf"rkllm[-_ ]toolkit(?:\s+version)?[\s:*`]*{_VERSION}", re.I),
    re.compile(rf"converted (?:with|using|by) (?:the )?rkllm(?:[- ](?:runtime|toolkit))?\s*{_VERSION}", re.I),
    re.compile(rf"\(rkllm {_VERSION}\)", re.I),
    re.compile(rf"rkllm runtime(?:\s+version)?[\s:*`]*{_VERSION}", re.I),
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
    if found is None:
        return {}
    try:
        tree = plainyaml.load(found[1])
    except (*YAML_FAULTS, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}
