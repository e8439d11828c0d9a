"""A tiny Gemma 2 with random weights and a vocabulary of its own, as a checkpoint: what proves a conversion."""

from __future__ import annotations

import json
import string
import struct
from typing import TYPE_CHECKING

import numpy as np

from rk_gemma_runtime.memory.shape import Shape

if TYPE_CHECKING:
    from pathlib import Path

# The toolkit refuses k and v with less than 96 outputs, and groups want inputs that 512 divides.
SHAPE = Shape("gemma2", "tiny", 512, 512, 2, 4, 2, 128, 1024, 256, norms=4)
MARKERS = ("<start_of_turn>", "<end_of_turn>")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece's numbers


def write_tiny(folder: Path) -> None:
    """Write config.json, weights and tokenizer into a new directory."""
    folder.mkdir()
    s = SHAPE
    config = {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "vocab_size": s.vocab,
        "hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim, "intermediate_size": s.ffn,
        "max_position_embeddings": s.context,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "query_pre_attn_scalar": s.head_dim,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 128,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh", "attention_bias": False,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "float32", "dtype": "float32",
        "tie_word_embeddings": True,
    }  # fmt: skip
    tokens = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False,
              "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}  # fmt: skip
    for name, tree in {"config.json": config, "tokenizer_config.json": tokens}.items():
        (folder / name).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(_vocabulary(s.vocab))
    (folder / "model.safetensors").write_bytes(_weights(s))


def _vocabulary(size: int) -> bytes:
    """Make a SentencePiece model of `size` pieces: Gemma's own, all bytes, and letters."""
    from sentencepiece import sentencepiece_model_pb2 as sp

    kinds = [("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN)]
    kinds += [(marker, USER_DEFINED) for marker in MARKERS]
    kinds += [(f"<0x{value:02X}>", BYTE) for value in range(256)]
    kinds += [(char, NORMAL) for char in f"\u2581{string.ascii_letters}{string.digits}.,?!'-"]
    pairs = (a + b for a in string.ascii_lowercase for b in string.ascii_lowercase)
    kinds += [(pair, NORMAL) for pair, _ in zip(pairs, range(size - len(kinds)), strict=False)]
    model = sp.ModelProto()
    model.trainer_spec.model_type = 2  # BPE, as Gemma's
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = size
    for field, number in {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}.items():
        setattr(model.trainer_spec, field, number)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.remove_extra_whitespaces = False
    for number, (piece, kind) in enumerate(kinds):
        model.pieces.add(piece=piece, score=-float(number), type=kind)
    return bytes(model.SerializeToString())


def _weights(s: Shape) -> bytes:
    random = np.random.default_rng(0)
    sizes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (s.vocab, s.hidden),
        "model.norm.weight": (s.hidden,),
    }
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
             "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}  # fmt: skip
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    for layer in range(s.layers):
        sizes |= {f"model.layers.{layer}.{names[x.name]}.weight": (x.rows, x.cols) for x in s.layer()}
        sizes |= {f"model.layers.{layer}.{norm}_layernorm.weight": (s.hidden,) for norm in norms}
    header, data = {}, b""
    for name, shape in sizes.items():
        values = random.normal(0, 0.02, shape).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
