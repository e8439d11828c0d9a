"""From a conversation to token ids and from token ids to text."""

from rk_gemma_runtime.chat.conversation import Conversation
from rk_gemma_runtime.chat.template import Message, Prompt, render
from rk_gemma_runtime.chat.text import TextStream
from rk_gemma_runtime.chat.tokenizer import Tokenizer

__all__ = ["Conversation", "Message", "Prompt", "TextStream", "Tokenizer", "render"]
