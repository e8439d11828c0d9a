"""Calibration text for the toolkit: prompts with Gemma's template around each, in the toolkit's form of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rk_gemma_runtime.chat.template import render
from rk_gemma_runtime.chat.tokenizer import END_OF_TURN, START_OF_TURN
from rk_gemma_runtime.errors import InputError, PromptError

if TYPE_CHECKING:
    from rk_gemma_runtime.chat.tokenizer import Tokenizer

NAME = "builtin"
# Written for this project, in twelve languages. Quantisation looks at the sizes of activations, so kinds of text
# matter more than their number: prose, lists, code, numbers, names, questions and instructions.
BUILTIN = Path(__file__).with_name("builtin.jsonl")
MOST, LONGEST, LARGEST = 512, 2048, 16 << 20  # entries, tokens of one, bytes of the file
MARKERS = (START_OF_TURN, END_OF_TURN, "<bos>", "<eos>")
# The toolkit's own names first; the others are those of other people's sets.
KEYS = (("input", "target"), ("prompt", "answer"), ("prompt", "completion"), ("instruction", "output"))


class Entry(NamedTuple):
    """A prompt, its answer (may be empty), and where it stands."""

    prompt: str
    answer: str
    where: str


class HasTokenizer(Protocol):
    """What is needed of a model's text; no tokenizer: prompts are continued without a template."""

    @property
    def tokenizer(self) -> Tokenizer | None: ...


def check_calibration(given: str) -> None:
    """Raise InputError for a file that cannot be used."""
    entries_of(given)


def entries_of(given: str) -> list[Entry]:
    """Read a file, or the set of this project for `builtin`. Raises InputError."""
    path = BUILTIN if given == NAME else Path(given)
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: over {LARGEST >> 20} MiB; {MOST} short prompts are enough")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    found = [_entry(tree, where) for where, tree in _trees(path, text)]
    if not 1 <= len(found) <= MOST:
        raise InputError(f"{path}: {len(found)} prompts; give 1 to {MOST}")
    return found


def _trees(path: Path, text: str) -> list[tuple[str, Any]]:
    """Parse a value a line, or one list of all."""
    if text.lstrip().startswith("["):
        try:
            return [(f"{path}: entry {i}", tree) for i, tree in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a JSON list: {error}") from error
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append((f"{path}: line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}: line {number} is not JSON: {error}; give one object a line") from error
    return found


def _entry(tree: Any, where: str) -> Entry:
    fields = tree if isinstance(tree, dict) else {}
    prompt, answer = next(((fields[p], fields.get(a, "")) for p, a in KEYS if p in fields), (None, ""))
    if not isinstance(prompt, str) or not isinstance(answer, str) or not prompt.strip():
        raise InputError(f'{where}: not a prompt; give {{"prompt": "...", "answer": "..."}} with text in both')
    marker = next((m for m in MARKERS if m in prompt or m in answer), "")
    if marker:
        raise InputError(f"{where}: has {marker} in it; give the bare text, the template is put around it here")
    return Entry(prompt, answer, where)


def write_dataset(given: str, path: Path, text: HasTokenizer) -> str:
    """Write the toolkit's file; return its path. Raises InputError for what is too long or not text."""
    rows = [_row(entry, text.tokenizer) for entry in entries_of(given)]
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return str(path)


def _row(entry: Entry, tokenizer: Tokenizer | None) -> dict[str, str]:
    """Put the template around a prompt. The toolkit's tokenizer adds <bos> itself."""
    if tokenizer is None:
        return {"input": entry.prompt, "target": entry.answer}
    try:
        prompt = render([{"role": "user", "content": entry.prompt}], tokenizer)
        size = len(prompt.ids) + len(tokenizer.encode(entry.answer))
    except PromptError as error:
        raise InputError(f"{entry.where}: {error}") from error
    if size > LONGEST:
        raise InputError(f"{entry.where}: {size} tokens; at most {LONGEST}, shorten it")
    return {"input": prompt.text.removeprefix("<bos>"), "target": f"{entry.answer.strip()}{END_OF_TURN}"}
