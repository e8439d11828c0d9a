"""Which requests of the test hub go wrong."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hubeffects import OF_BODY, Effect

# "api" is every endpoint below /api, "" everything.
Where = Literal[
    "", "api", "info", "revision", "tree", "paths-info", "refs", "auth-check", "resolve", "raw", "blob", "page", "cdn"
]  # fmt: skip
PAGES = ("resolve", "raw", "blob", "cdn", "page")


class Target(NamedTuple):
    """What a request is about. `where` is the endpoint, or "cdn"; unknown parts are empty."""

    where: str
    repo: str = ""
    file: str = ""


@dataclass
class Fault:
    """Effects, and the requests that they strike: after `skip` that fit, the next `times`, or all if it is None.

    Without a method, a HEAD does not fit if there is an effect on the body.
    """

    effects: tuple[Effect, ...]
    at: Where = ""
    repo: str = "*"
    file: str = "*"
    method: str | None = None
    skip: int = 0
    times: int | None = None
    struck: int = 0
    _met: int = field(default=0, repr=False)

    def strikes(self, method: str, target: Target) -> bool:
        """Count a request and tell whether the effects are for it. The caller holds the hub's lock."""
        if not self._fits(method, target):
            return False
        self._met += 1
        if self._met <= self.skip or (self.times is not None and self.struck >= self.times):
            return False
        self.struck += 1
        return True

    def _fits(self, method: str, target: Target) -> bool:
        here = self.at in ("", target.where) or (self.at == "api" and target.where not in PAGES)
        names = ((target.repo, self.repo), (target.file, self.file))
        wanted = method == self.method if self.method else method != "HEAD" or not self._of_body()
        return here and wanted and all(fnmatch.fnmatchcase(name, pattern) for name, pattern in names)

    def _of_body(self) -> bool:
        return any(isinstance(effect, OF_BODY) for effect in self.effects)
