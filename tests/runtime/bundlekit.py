"""Bundles with a synthetic `.rkllm`: what a manifest says, and a file that says the same or something else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rkllmkit import Rkllm, gemma_keys

from rk_gemma_runtime.bundle import Adapter, Bundle, CpuPart, FileFacts, Manifest, ModelFacts, NpuPart

if TYPE_CHECKING:
    from pathlib import Path

NPU_FILE, CPU_FILE = "model.rkllm", "model.gguf"
VOCAB = 256
SHAPE = {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 128}
PART = NpuPart(NPU_FILE, "rkllm", "w8a8", "RK3588", "1.3.0", 4096, 3)


def rkllm(toolkit: str = "1.3.0", keys: dict[str, Any] | None = None, **changes: Any) -> Rkllm:
    """A file of `toolkit`; `keys` as in rkllmkit, each with its type, None leaves one out."""
    stated = {"rkllm.version": ("string", toolkit) if toolkit >= "1.2" else None, **(keys or {})}
    trailer = f"rkllm-toolkit version: {toolkit}".encode()
    return Rkllm(**{"keys": gemma_keys(vocab=VOCAB, **stated), "trailer": trailer, **changes})


def write_rkllm_bundle(
    folder: Path,
    file: Rkllm | bytes | None = None,
    npu: dict[str, Any] | None = None,
    adapters: dict[str, Rkllm | bytes] | None = None,
    cpu: bytes | None = None,
    **manifest: Any,
) -> Path:
    """Write a bundle. `npu` changes the manifest's NPU part, other names the manifest; without a `file` there is one
    that agrees with them. `adapters`: LoRA files by name."""
    part = replace(PART, **(npu or {}))
    given = {"context": part.max_context, "vocab": VOCAB, **manifest}
    folder.mkdir(parents=True)
    files = {part.file: _bytes(file if file is not None else _agreeing(part, given))}
    loras = {f"{name}.lora.rkllm": _bytes(data) for name, data in (adapters or {}).items()}
    weights = {CPU_FILE: cpu} if cpu is not None else {}
    facts = {}
    for name, data in (files | loras | weights).items():
        (folder / name).write_bytes(data)
        facts[name] = FileFacts(hashlib.sha256(data).hexdigest(), len(data))
    made = Manifest(
        model=ModelFacts("gemma2", "tiny", "it"), bos=2, eos=(1, 107), template="none", npu=part, shape=SHAPE,
        cpu=CpuPart(CPU_FILE, "Q8_0") if cpu is not None else None,
        adapters=tuple(Adapter(name, f"{name}.lora.rkllm", None, "", 8) for name in adapters or {}),
        files=facts, **{key: value for key, value in given.items() if key in {"context", "vocab"}},
    )  # fmt: skip
    made = replace(made, **{key: value for key, value in given.items() if key not in {"context", "vocab"}})
    (folder / "bundle.yaml").write_text(made.dump())
    return folder


def open_rkllm_bundle(folder: Path, *args: Any, **kwargs: Any) -> Bundle:
    """Write one and open it."""
    return Bundle.open(write_rkllm_bundle(folder, *args, **kwargs))


def _agreeing(part: NpuPart, given: dict[str, Any]) -> Rkllm:
    code = {"RK3588": 0}.get(part.platform, 7)
    keys = {
        "rkllm.platform": ("u32", code),
        "rkllm.core_num": ("u32", part.npu_cores),
        "rkllm.max_context": ("u32", part.max_context),
        "gemma2.vocab_size": ("u32", given["vocab"]),
        "tokenizer.ggml.tokens": ("strings", [f"t{i}" for i in range(given["vocab"])]),
    }
    return rkllm(part.toolkit or "1.3.0", keys, tensors=(("token_embd.weight", (64, given["vocab"])),))


def _bytes(file: Rkllm | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.data()
