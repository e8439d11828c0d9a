"""The checkpoint run by transformers in fp32, plain or in simulated w8a8."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Gemma2ForCausalLM

from demo.fakequant import fake_w8a8
from demo.tokenizer import END, ChatTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from demo.corpus import Conversation

GROUP = 48


def load_model(checkpoint: Path) -> Any:
    """The saved bf16 weights, computed with in fp32, by the eager attention that has the soft cap."""
    model = Gemma2ForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


class Reference:
    """A greedy answerer. Conversations of like length are answered together."""

    def __init__(self, checkpoint: Path, max_tokens: int, quantised: bool = False) -> None:
        self._model = load_model(checkpoint)
        self._tokenizer = ChatTokenizer(checkpoint / "tokenizer.model")
        self._max_tokens, self._quantised = max_tokens, quantised

    def __call__(self, talk: Conversation) -> str:
        return self.answer_all([talk])[0]

    def answer_all(self, talks: list[Conversation]) -> list[str]:
        """The answers in the order of the conversations."""
        prompts = [self._tokenizer.prompt_ids(talk) for talk in talks]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        given: dict[int, str] = {}
        with fake_w8a8(self._model) if self._quantised else contextlib.nullcontext():
            for first in range(0, len(order), GROUP):
                group = order[first : first + GROUP]
                given.update(zip(group, self._answer([prompts[i] for i in group]), strict=True))
        return [given[i] for i in range(len(talks))]

    def _answer(self, prompts: list[list[int]]) -> list[str]:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            out = self._model.generate(
                ids, attention_mask=mask, max_new_tokens=self._max_tokens, do_sample=False, eos_token_id=[1, END]
            )
        return [self._text(row.tolist()) for row in out[:, width:]]

    def _text(self, ids: list[int]) -> str:
        end = next((i for i, token in enumerate(ids) if token in (0, 1, END)), len(ids))
        return self._tokenizer.decode(ids[:end]).strip()


def _compare(plain: Tensor, quantised: Tensor) -> tuple[int, float]:
    """Positions whose most likely token is the same, and the summed KL divergence."""
    log_p, log_q = plain.log_softmax(-1), quantised.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return int((plain.argmax(-1) == quantised.argmax(-1)).sum()), float(kl.sum())


def closeness(checkpoint: Path, talks: list[Conversation]) -> dict[str, float]:
    """Simulated w8a8 against fp32 over every next-token position of the conversations."""
    model, tokenizer = load_model(checkpoint), ChatTokenizer(checkpoint / "tokenizer.model")
    same, kl, positions = 0, 0.0, 0
    with torch.inference_mode():
        for talk in talks:
            ids = torch.tensor([tokenizer.training_ids(talk)[0]])
            plain = model(input_ids=ids).logits[0]
            with fake_w8a8(model):
                quantised = model(input_ids=ids).logits[0]
            agree, divergence = _compare(plain, quantised)
            same, kl, positions = same + agree, kl + divergence, positions + len(plain)
    return {"positions": float(positions), "top1_agreement": same / positions, "mean_kl": kl / positions}
