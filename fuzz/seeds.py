"""Where fuzzing begins: real logs, the files of every described board, configs."""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rk_gemma.checkpoint import read_spec
from rk_gemma.checkpoint.names import expected_shapes
from rk_gemma_runtime.board.profile import find_profile, load_tree, profile_names
from rk_gemma_runtime.bundle import SHAPE, Adapter, CpuPart, FileFacts, Manifest, ModelFacts, NpuPart
from rk_gemma_runtime.doctor.tree import write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

CUT = b"\n%%\n"
DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


# A Gemma 2 whose file is a few KiB.
SMALL = {
    "model_type": "gemma2", "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "intermediate_size": 8, "max_position_embeddings": 16,
}  # fmt: skip
TEXTS = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "chat_template.json", "chat_template.jinja")


def small_weights(prefix: str = "", dtype: str = "BF16") -> bytes:
    """A safetensors file of SMALL's tensors, all zero."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SMALL))
        shapes = expected_shapes(read_spec(Path(folder)))
    table, at = {}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * (4 if dtype == "F32" else 2)
        table[prefix + name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(table).encode()
    return len(head).to_bytes(8, "little") + head + bytes(at)


def files_of(profile: str) -> dict[str, bytes]:
    """The files that a described board shows, by name, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tree(load_tree(find_profile(profile)), root)
        found = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def write_seeds(target: str, folder: Path) -> None:
    """One file per seed."""
    for number, seed in enumerate(_seeds(target)):
        (folder / f"seed{number}").write_bytes(seed)


def _seeds(target: str) -> Iterator[bytes]:
    if target in {"explain", "lines"}:
        yield from _logs()
    elif target == "doctor":
        yield from (CUT.join(files_of(name).values()) for name in profile_names())
    elif target == "profile":
        yield from (find_profile(name).read_bytes() for name in profile_names())
    elif target == "weights":
        yield from (small_weights(prefix, dtype) for prefix in ("", "_orig_mod.") for dtype in ("BF16", "F32", "I8"))
    elif target == "index":
        yield json.dumps(
            {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
        ).encode()
    elif target == "vocabulary":
        yield from _vocabularies()
    elif target in {"rkllm", "gguf"}:
        yield from _containers(target)
    elif target == "manifest":
        yield _manifest()
    elif target == "card":
        yield b"---\nlicense: gemma\nbase_model: [a/b]\n---\nCompatible with RKLLM version: 1.1.2\n"
        yield b"gemma-2-9b-it-rk3588-w8a8_g128-opt-1-hybrid-ratio-0.5-ctx16k-npu3.rkllm"
    else:
        yield from (path.read_bytes() for path in sorted(DATA.rglob("config*.json")))


def _containers(kind: str) -> Iterator[bytes]:
    """A GGUF is an .rkllm without its mask."""
    sys.path.append(str(DATA.parent / "runtime"))
    kit: Any = importlib.import_module("rkllmkit")
    for vocab in (4, 64):
        keys = kit.gemma_keys(vocab=vocab)
        yield (kit.Rkllm(keys, bytes(256), body=64) if kind == "gguf" else kit.Rkllm(keys, body=64)).data()


def _manifest() -> bytes:
    part = NpuPart("model.rkllm", "rkllm", "w8a8", "RK3588", "1.3.1", 4096, 3, "by hand")
    files = {name: FileFacts("0" * 64, 1) for name in ("model.rkllm", "model.gguf", "x.lora.gguf")}
    whole = Manifest(
        ModelFacts("gemma2", "2b", "it"), 4096, 256000, 2, (1, 107), "gemma", part, CpuPart("model.gguf", "Q4_0"),
        adapters=(Adapter("x", None, "x.lora.gguf", "x", 8),), shape=dict.fromkeys(SHAPE, 8), files=files,
    )  # fmt: skip
    return whole.dump().encode()


def _logs() -> Iterator[bytes]:
    for path in sorted((DATA / "failures").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            text = record.get("log") or record.get("lines") or ""
            yield ("\n".join(text) if isinstance(text, list) else str(text)).encode()


def _vocabularies() -> Iterator[bytes]:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "ab"]
    model = {
        "type": "BPE",
        "byte_fallback": True,
        "vocab": {p: i for i, p in enumerate(pieces)},
        "merges": [["a", "b"]],
    }
    whole = [{"id": i, "content": piece, "special": True} for i, piece in enumerate(pieces[:4])]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    tree = {"model": model, "added_tokens": whole, "normalizer": space}
    texts = {
        "added_tokens_decoder": {"263": {"content": "<x>"}},
        "chat_template": [{"name": "default", "template": "{{x}}"}],
    }
    yield CUT.join(
        json.dumps(part).encode() for part in (tree, texts, {"<y>": 264}, {"chat_template": "<|im_start|>"})
    )
