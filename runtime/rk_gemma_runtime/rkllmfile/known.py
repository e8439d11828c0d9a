"""Names of keys that `.rkllm` files may have (strings of librkllmrt 1.2.1b1, and a report on 1.3.1)."""

from __future__ import annotations

GENERAL = (
    "general.architecture", "general.file_type", "general.name", "general.alignment", "general.quantization_version",
    "general.type", "general.size_label", "general.basename", "general.finetune", "general.license",
)  # fmt: skip
RKLLM = (
    "rkllm.version", "rkllm.platform", "rkllm.core_num", "rkllm.max_context", "rkllm.has_embedding",
    "rkllm.has_tokenizer", "rkllm.lora_quant", "rkllm.model_name", "rkllm.m_align", "rkllm.hidden_act_param",
    "rkllm.act_type", "rkllm.ffn_gate", "rkllm.ffn_up", "rkllm.ffn_down", "rkllm.scale_depth", "rkllm.scale_emb",
    "rkllm.dim_model_base", "rkllm.chat_template.pre", "rkllm.chat_template.system", "rkllm.chat_template.post",
    "rkllm.vision.spatial_merge_size", "rkllm.vision.spatial_patch_size", "rkllm.vision.patch_size",
)  # fmt: skip
TOKENIZER = (
    "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.pre",
    "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix", "tokenizer.huggingface.json", "tokenizer.chat_template",
)  # fmt: skip
OF_ARCHITECTURE = (
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "attention.sliding_window", "rope.dimension_count", "rope.freq_base",
    "attn_logit_softcapping", "final_logit_softcapping", "expert_count",
)  # fmt: skip
ALL = (*GENERAL, *RKLLM, *TOKENIZER)


def of_architecture(name: str) -> tuple[str, ...]:
    """Name the keys that start with the architecture."""
    return tuple(f"{name}.{key}" for key in OF_ARCHITECTURE)
