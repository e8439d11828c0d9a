"""What a person says about a bundle that no file tells, or against what a file tells."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rk_gemma_runtime.board.versions import version_key
from rk_gemma_runtime.bundle import TEMPLATES
from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.memory.dtypes import dtype_of
from rk_gemma_runtime.memory.shape import FAMILIES, MOST

VARIANTS = ("it", "base")
CHAT = ("auto", *TEMPLATES)
CORES = 3


@dataclass(frozen=True)
class Wishes:
    """Empty or 0 for what is left to the files. `force` joins parts that contradict each other."""

    family: str = ""
    size: str = ""
    variant: str = ""
    context: int = 0
    dtype: str = ""
    cores: int = 0
    toolkit: str = ""
    template: str = "auto"
    licence: str = ""
    force: bool = False

    def check(self) -> None:
        """Raise UsageError for a word or a number that cannot be."""
        for name, given, known in (
            ("--family", self.family, FAMILIES), ("--variant", self.variant, VARIANTS),
            ("--chat-template", self.template, CHAT),
        ):  # fmt: skip
            if given and given not in known:
                raise UsageError(f"unknown {name} {given!r}; choose {' or '.join(known)}")
        if self.dtype:
            dtype_of(self.dtype)
        if self.size and not re.fullmatch(r"\d+(?:\.\d+)?[bmBM]", self.size):
            raise UsageError(f"--size {self.size!r} is not a size such as 2b, 9b or 270m")
        if self.toolkit and not version_key(self.toolkit):
            raise UsageError(f"--toolkit {self.toolkit!r} is not a version such as 1.2.3")
        if not 0 <= self.cores <= CORES:
            raise UsageError(f"--npu-cores {self.cores}: an RK3588 has {CORES}")
        if not 0 <= self.context <= MOST:
            raise UsageError(f"--context {self.context} is not a number of tokens that a model has")
