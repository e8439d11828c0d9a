"""What was given where a checkpoint's directory belongs: a name of the hub, an address, a file, nothing at all."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from rk_gemma.checkpoint.foreign import ORIGINAL

if TYPE_CHECKING:
    from pathlib import Path

# An address, of which a path has lost a slash; or OWNER/NAME; or a name as Google gives it.
ADDRESS = re.compile(r"(?:https?|hf):/+(?:(?:huggingface\.co|hf\.co|www\.huggingface\.co)/)?([\w.-]+/[\w.-]+).*")
REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")
GOOGLES = re.compile(r"(?:codegemma-|gemma-)[\w.-]*\d+b[\w.-]*", re.IGNORECASE)
INSIDE = (".safetensors", ".json", ".model", ".jinja")  # files of a checkpoint


def no_directory(given: Path) -> str:
    """Say what `given` is, which is not a directory, and what to give."""
    if os.path.isfile(given):
        return f"{given}: {_file(given)}"
    repository = _repository(given)
    if repository:
        fetch = f"hf download {repository} --local-dir {repository.rpartition('/')[2]}"
        return f"{given}: no such directory; download the checkpoint first: `{fetch}` (README: Use it with Gemma)"
    return f"{given}: no such directory; give a Hugging Face checkpoint directory"


def _file(given: Path) -> str:
    if given.suffix == ".gguf":
        return f"a GGUF file, not a checkpoint directory; {ORIGINAL}"
    if given.suffix in INSIDE:
        return f"a file, not a checkpoint directory; give the directory that it lies in: {given.parent}"
    return "a file, not a checkpoint directory; give a directory with config.json and *.safetensors"


def _repository(given: Path) -> str:
    """Return the hub's name for what was meant; "" if a directory was meant."""
    text = str(given)
    address = ADDRESS.fullmatch(text)
    if address:
        return address[1]
    if REPOSITORY.fullmatch(text) and not os.path.lexists(given.parent):
        return text
    return f"google/{text}" if GOOGLES.fullmatch(text) else ""
