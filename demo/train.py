"""Train the demo model from scratch: `python -m demo.train`.

Deterministic: the same seed, steps and thread count on the same machine give the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GenerationConfig

from demo.batches import Batch, batches
from demo.corpus import Corpus
from demo.fakequant import fake_w8a8
from demo.tokenizer import BOS, CHECKPOINT, END, VOCAB, ChatTokenizer, train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator


def model_config() -> Gemma2Config:
    """Every feature of Gemma 2, in small; a chat of three turns leaves the sliding window."""
    return Gemma2Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        query_pre_attn_scalar=48,
        sliding_window=64,
        max_position_embeddings=1024,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=BOS,
    )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over 40 steps, stay, and fall linearly to nearly nothing over the last 60 %."""
    rise = min(1.0, (step + 1) / 40)
    fall = min(1.0, (steps - step) / (0.6 * steps))
    return peak * rise * (0.01 + 0.99 * fall)


def loss_of(model: Any, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy of every next token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch.ids[:, :-1], use_cache=False).logits
    losses = nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def optimizers(model: nn.Module, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


class Trainer:
    """The model, its optimizers and the stream of batches."""

    def __init__(self, args: argparse.Namespace, tokenizer: ChatTokenizer) -> None:
        self._args = args
        self.model: Any = Gemma2ForCausalLM._from_config(model_config(), attn_implementation="eager")
        self._optimizers = optimizers(self.model, args.decay)
        self._batches = batches(Corpus(args.seed), tokenizer, args.tokens, args.user_weight, args.seed)

    def run(self) -> Iterator[tuple[int, float, int]]:
        """One step at a time: its number, loss and tokens."""
        for step in range(self._args.steps):
            batch = next(self._batches)
            quantised = step >= self._args.steps * (1 - self._args.quantised)
            with fake_w8a8(self.model) if quantised else contextlib.nullcontext():
                loss = loss_of(self.model, batch)
                loss.backward()
            self._update(learning_rate(step, self._args.steps, self._args.lr))
            yield step, loss.item(), batch.ids.numel()

    def _update(self, rate: float) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def save(model: Any, tokenizer: bytes, out: Path) -> None:
    """The checkpoint in Hugging Face format, weights in bf16."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=[1, END], pad_token_id=0, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "tokenizer.model").write_bytes(tokenizer)


def seed_everything(seed: int, threads: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def train(args: argparse.Namespace) -> None:
    """Train, print a line every 25 steps, write the checkpoint."""
    seed_everything(args.seed, args.threads)
    tokenizer = train_tokenizer()
    trainer = Trainer(args, ChatTokenizer(tokenizer))
    size = sum(p.numel() for p in trainer.model.parameters())
    print(f"{size} parameters, {args.steps} steps, seed {args.seed}, {args.threads} threads", flush=True)
    start, tokens, mean = time.monotonic(), 0, 0.0
    for step, loss, count in trainer.run():
        tokens += count
        mean = loss if step == 0 else 0.96 * mean + 0.04 * loss
        if step % 25 == 0 or step + 1 == args.steps:
            seconds = time.monotonic() - start
            speed = tokens / seconds
            print(f"step {step} loss {mean:.4f} tokens {tokens} {speed:.0f}/s {seconds:.0f} s", flush=True)
    save(trainer.model, tokenizer, args.out)


def configure_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    parser.add_argument("--tokens", type=int, default=4096, help="padded tokens in a batch")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--user-weight", type=float, default=0.15, help="weight of the user's words")
    parser.add_argument("--quantised", type=float, default=0.1, help="last share of the steps in w8a8")
    return parser


if __name__ == "__main__":
    train(configure_parser().parse_args())
