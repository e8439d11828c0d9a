"""The numbers of a transformer that decide its size: from a Hugging Face config, or of a Gemma by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST = 1 << 20  # of any one dimension; a larger number is damage
MOST_LAYERS = 1024  # Gemma 2 27B has 46
DEFAULT_CONTEXT = 4096  # rkllm-toolkit's own
# Spelling of each number in configs of Llama-like, ChatGLM-like and InternLM-like models.
KEYS = {
    "vocab": ("padded_vocab_size", "vocab_size"),
    "hidden": ("hidden_size", "n_embd"),
    "layers": ("num_hidden_layers", "num_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "multi_query_group_num", "num_attention_heads", "n_head"),
    "head_dim": ("head_dim", "kv_channels"),
    "ffn": ("intermediate_size", "ffn_hidden_size"),
    "context": ("max_position_embeddings", "seq_length", "n_positions"),
}
# Gemma has one spelling, and no other number stands for a missing one.
GEMMA_KEYS = {
    "vocab": "vocab_size", "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "ffn": "intermediate_size",
    "context": "max_position_embeddings",
}  # fmt: skip
# All other Gemmas are refused.
FAMILIES = ("gemma", "gemma2")
# What transformers takes where a config leaves the number out; other models divide hidden by heads.
HEAD_DIMS = {"gemma": 256, "gemma2": 256, "qwen3": 128, "glm": 128, "glm4": 128}
CONTEXTS = {"gemma": 8192, "gemma2": 8192}
# Models whose weights are not the seven linear layers of a Llama: their sizes would be wrong.
OTHER_KINDS = {
    "kv_lora_rank": "multi-head latent attention",
    "num_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "num_local_experts": "a mixture of experts",
    "linear_num_key_heads": "linear attention",
    "vocab_size_per_layer_input": "per-layer embeddings",
    "attention_hidden_size": "a recurrent network",
}


@dataclass(frozen=True)
class Linear:
    """One linear layer: `rows` outputs, `cols` inputs."""

    name: str
    rows: int
    cols: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.rows * self.cols


@dataclass(frozen=True)
class Shape:
    """A decoder of Llama's kind: q, k, v, o and a gated MLP per layer. `norms` per layer; `context` in tokens."""

    family: str
    name: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    norms: int = 2

    def layer(self) -> tuple[Linear, ...]:
        """Return the linear layers of one block, in the order of the file."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            Linear("q", wide, self.hidden),
            Linear("k", narrow, self.hidden),
            Linear("v", narrow, self.hidden),
            Linear("o", self.hidden, wide),
            Linear("gate", self.ffn, self.hidden),
            Linear("up", self.ffn, self.hidden),
            Linear("down", self.hidden, self.ffn),
        )

    @property
    def head(self) -> Linear:
        """The output layer; a quantised model has it even where the embedding is tied."""
        return Linear("output", self.vocab, self.hidden)

    def linears(self) -> Iterator[Linear]:
        """Return every linear layer in the order of the file, the head last."""
        for _ in range(self.layers):
            yield from self.layer()
        yield self.head

    @property
    def layer_weights(self) -> int:
        """Weights of all blocks' linear layers."""
        return self.layers * sum(linear.size for linear in self.layer())

    @property
    def linear_weights(self) -> int:
        """The same with the head."""
        return self.layer_weights + self.head.size

    @property
    def parameters(self) -> int:
        """Weights as they are counted on a model card, a tied embedding once."""
        return self.linear_weights + self.hidden * (self.layers * self.norms + 1)

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values in fp16, every layer with full attention. Prompt cache files of the vendor's library have
        this size; whether sliding layers keep less is not known, so they are counted whole."""
        return self.layers * self.kv_heads * self.head_dim * 2 * 2


def from_config(config: Mapping[str, Any], name: str) -> Shape:
    """Read the shape from a Hugging Face config.json. Raises UsageError if it is not a plain decoder."""
    try:
        return read_shape(config, name)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{name}: not a model config: {error}") from error


def read_shape(config: Mapping[str, Any], name: str) -> Shape:
    """Read the shape as plan and export do. Raises ValueError, TypeError or AttributeError."""
    check_family(config)
    inner = config.get("text_config") or config
    if not isinstance(inner, dict):
        raise ValueError("text_config is not a mapping")
    _check_kind(inner)
    family = str(inner.get("model_type") or "unknown")
    values = {field: _number(inner, field, family) for field in KEYS}
    shape = Shape(family, name, **values, norms=norms_of(family))
    shape = shape if shape.head_dim else replace(shape, head_dim=shape.hidden // shape.heads)
    if not shape.head_dim or shape.layers > MOST_LAYERS:
        raise ValueError(f"impossible: {shape.heads} heads of {shape.hidden}, {shape.layers} layers")
    return shape


def check_family(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a Gemma that is neither Gemma 1 nor 2, also one inside a model for pictures."""
    kind = config.get("model_type")
    inner = config.get("text_config") or {}
    inside = _names(inner) if isinstance(inner, dict) else ""
    if "gemma" in f"{_names(config)} {inside}" and (inner or kind not in FAMILIES):
        raise ValueError(f"model_type {kind!r} is not Gemma 1 or 2 (supported: {', '.join(FAMILIES)})")


def _names(config: Mapping[str, Any]) -> str:
    return f"{config.get('model_type')} {config.get('architectures')}".lower()


def _check_kind(config: Mapping[str, Any]) -> None:
    for key, kind in OTHER_KINDS.items():
        if config.get(key):
            raise ValueError(f"{kind} ({key}); only plain decoders of Llama's kind can be planned")


def norms_of(family: str) -> int:
    """Count the norms of a layer: Gemma 2 normalises the outputs of attention and MLP too."""
    return 4 if family == "gemma2" else 2


def _number(config: Mapping[str, Any], field: str, family: str) -> int:
    gemma = family in FAMILIES
    keys = (GEMMA_KEYS[field],) if gemma else KEYS[field]
    for key in keys:
        if config.get(key) is not None:
            value = config[key]
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST:
                raise ValueError(f"impossible {key} {value!r}")
            return value
    if field == "head_dim":
        return HEAD_DIMS.get(family, 0)
    if field == "context" and not (gemma and keys[0] in config):
        return CONTEXTS.get(family, DEFAULT_CONTEXT)
    raise ValueError(f"no {keys[-1]}")
