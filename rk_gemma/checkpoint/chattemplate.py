"""Which chat template a checkpoint has: Gemma's, another one by name, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint.config import read_json
from rk_gemma.checkpoint.values import cut, plain_text
from rk_gemma_runtime.chat.tokenizer import END_OF_TURN, START_OF_TURN
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

GEMMA = "gemma"
# The chat_template of google/gemma-7b-it and gemma-2-2b-it (identical), which the runtime renders.
OFFICIAL = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
# What only this kind of template writes, most telling first.
MARKS = {
    "<|im_start|>": "ChatML", "<|im_end|>": "ChatML", "<|start_header_id|>": "Llama 3's",
    "[INST]": "Llama 2's or Mistral's", "GPT4 Correct": "OpenChat's", "<human>": "<human>/<bot>",
    "<|START_OF_TURN_TOKEN|>": "Command R's", "<|user|>": "Zephyr's or Phi's", "<|assistant|>": "Zephyr's or Phi's",
    "<|turn>": "a later Gemma's", "<\uff5cUser\uff5c>": "DeepSeek's", "### Instruction": "Alpaca's",
    "### User": "an Alpaca-like one", "### Human": "an Alpaca-like one", "USER:": "Vicuna's",
    "Human:": "Human/Assistant",
}  # fmt: skip


def template_text(directory: Path) -> str:
    """Read the template from where transformers looks for it; nothing if there is none. Raises CheckpointError."""
    jinja = directory / "chat_template.jinja"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{jinja}: cannot be read: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = directory / name
        text = _default(read_json(path).get("chat_template")) if path.is_file() else ""
        try:
            if plain_text(text):
                return text
        except ValueError as error:
            raise CheckpointError(f"{path}: chat_template: {cut(error)}") from error
    return ""


def _default(value: Any) -> str:
    """Take the text, or the default one of several."""
    if isinstance(value, list):
        value = {str(e.get("name")): e.get("template") for e in value if isinstance(e, dict)}
    if isinstance(value, dict):
        value = value.get("default") or next(iter(value.values()), "")
    return value if isinstance(value, str) else ""


def kind_of(text: str, added: Iterable[str]) -> str:
    """Name the template: `gemma`, another one in words, or nothing if neither it nor the `added` tokens tell."""
    marks = [name for mark, name in MARKS.items() if mark in text]
    if START_OF_TURN in text and END_OF_TURN in text and not marks:
        return GEMMA
    if text:
        return marks[0] if marks else "not Gemma's"
    tokens = set(added)
    return next((name for mark, name in MARKS.items() if mark in tokens), "")


def is_official(text: str) -> bool:
    """Whether it is the template that the runtime renders, blanks aside."""
    return not text or _bare(text) == _bare(OFFICIAL)


def _bare(text: str) -> str:
    return "".join(text.replace("\\n", "").split())
