"""YAML as data files need it: the safe subset, without aliases. A kilobyte of those can name gigabytes."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias where it stands, before anything is built."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name), which is refused here")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        """Write equal values out, each where it stands."""
        return True


def load(text: str) -> Any:
    """Read one document. Raises yaml.YAMLError, and Python's own errors for scalars such as 2024-13-45."""
    return yaml.load(text, Loader=_Loader)


def dump(tree: object) -> str:
    """Write a document, keys in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
