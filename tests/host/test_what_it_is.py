"""A checkpoint that cannot be exported is named by what it is: one line, exit 3, nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpointkit import plain, quantised, raw, write_any
from hosttools import GEMMA2, errors_of, random_weights, write_checkpoint

from rk_gemma.checkpoint import Checkpoint
from rk_gemma_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUANTISED = [
    ("fp8", {"quant_method": "fp8", "activation_scheme": "static"}, "FP8"),
    ("fp8", None, "FP8"),
    ("fp8-bare", None, "FP8"),
    ("fp8-blocks", {"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8"),
    ("fp8", {"quant_method": "compressed-tensors"}, "FP8"),
    ("gptq", {"quant_method": "gptq", "bits": 4}, "GPTQ"),
    ("gptq", None, "GPTQ"),
    ("awq", {"quant_method": "awq", "bits": 4}, "AWQ"),
    ("awq", None, "GPTQ or AWQ"),
    ("mlx", None, "MLX"),
    ("bnb-4bit", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
    ("bnb-4bit", None, "bitsandbytes 4-bit"),
    ("bnb-8bit-tiled", {"load_in_8bit": True}, "bitsandbytes 8-bit"),
    ("bnb-8bit-odd", {"load_in_8bit": True}, "bitsandbytes 8-bit"),
    ("compressed", {"quant_method": "compressed-tensors"}, "compressed-tensors"),
    ("int8", {"quant_method": "quanto"}, "quanto"),
    ("int8", None, "integers"),
    ("eetq", None, "EETQ"),
    ("int8", {"quant_method": "eetq"}, "EETQ"),
    ("hqq", None, "HQQ"),
    ("quanto", None, "quanto"),
    ("torchao", None, "torchao"),
    ("torchao-colon", None, "torchao"),
    ("vptq", None, "VPTQ"),
    ("spqr", None, "SpQR"),
    ("higgs", None, "HIGGS"),
    ("squeezellm", None, "SqueezeLLM"),
    ("aqlm", None, "AQLM"),
    ("exl2", None, "EXL2"),
    ("exl3", None, "EXL3"),
    ("scaled", None, "weights with scales"),
    ("int8", {"quant_method": "intel/auto-round"}, "AutoRound"),
]


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize(("kind", "stated", "name"), QUANTISED)
def test_quantised(kind: str, stated: Any, name: str, prefix: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    tensors = {f"{prefix}{key}": value for key, value in quantised(kind).items()}
    write_any(tmp_path / "src", tensors, **({"quantization_config": stated} if stated else {}))
    done = main("export", tmp_path / "src", "-o", tmp_path / "b")
    assert (done.code, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    said = errors_of(done.stderr)[0]
    assert "quantised" in said and name in said and "export the unquantised checkpoint" in said
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_plain_numbers_under_a_quantised_config(tmp_path: Path) -> None:
    """A merge of a QLoRA model leaves the config behind: its weights are whole."""
    stated = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    write_any(tmp_path, plain(random_weights(GEMMA2)), quantization_config=stated)
    notes = Checkpoint.open(tmp_path).notes
    assert len(notes) == 1 and "bitsandbytes 4-bit" in notes[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [("gemma-2-2b-it-Q4_K_M.gguf", "GGUF"), ("pytorch_model.bin", "pickle"), ("gemma-2b.ckpt", "pickle"),
     ("weights.npz", "MLX"), ("flax_model.msgpack", "Flax"), ("model.weights.h5", "Keras"), ("model.keras", "Keras"),
     ("gemma2.task", "MediaPipe"), ("gemma.litertlm", "MediaPipe"), ("model.rkllm", "RKLLM"), ("model.rknn", "RKNN"),
     ("model.onnx", "ONNX"), ("onnx/model_q4.onnx", "ONNX"), ("openvino_model.bin", "OpenVINO"),
     ("params_shard_0.bin", "MLC"), ("ggml-model-q4_0.bin", "GGML"), ("rank0.engine", "TensorRT"),
     ("model.mlpackage/Manifest.json", "Core ML"), ("ckpt/_METADATA", "Orbax"), ("2b-sfp.sbs", "gemma.cpp"),
     ("model.safetensors.gz", "packed"), ("model.pte", "ExecuTorch"),
     ("global_step500/mp_rank_00_model_states.pt", "zero_to_fp32"), ("shards/__0_0.distcp", "distributed checkpoint"),
     ("__0_0.distcp", "distributed checkpoint"), ("model.safetensors.incomplete", "not finished"),
     ("model.safetensors.crdownload", "not finished"), ("optimizer.pt", "a trainer's state"),
     ("adapter_model.bin", "LoRA adapter"), ("adapter_model.safetensors", "LoRA adapter")],
)  # fmt: skip
@pytest.mark.parametrize("config", [True, False])
def test_another_format_in_the_folder(
    config: bool, name: str, says: str, tmp_path: Path, main: Callable[..., Any]
) -> None:
    source = write_checkpoint(tmp_path / "src")
    (source / "model.safetensors").unlink()
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_bytes(b"x")
    if not config:
        (source / "config.json").unlink()
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    said = errors_of(done.stderr)[0]
    assert says in said and ("distcp" in name or name.split("/")[0] in said)
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin", ""])
@pytest.mark.parametrize("config", [True, False])
def test_an_adapters_directory(config: bool, weights: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    """With the name of its base, which is what can be exported."""
    source = write_checkpoint(tmp_path / "src")
    (source / "model.safetensors").unlink()
    (source / "adapter_config.json").write_text('{"base_model_name_or_path": "google/gemma-2-2b-it"}')
    if weights:
        (source / weights).write_bytes(b"x")
    if not config:
        (source / "config.json").unlink()
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    said = errors_of(done.stderr)[0]
    assert "LoRA adapter, not a model" in said and "base 'google/gemma-2-2b-it' with --lora-adapter" in said


@pytest.mark.parametrize("names", [["checkpoint-500"], ["checkpoint-500", "checkpoint-1000"], ["a", "b", "c", "d"]])
def test_checkpoints_one_folder_below(names: list[str], tmp_path: Path, main: Callable[..., Any]) -> None:
    for name in names:
        write_checkpoint(tmp_path / "run" / name)
    done = main("export", tmp_path / "run", "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert all(name in errors_of(done.stderr)[0] for name in sorted(names)[:3])
    assert main("export", tmp_path / "run" / names[0], "-o", tmp_path / "b", "--cpu", "none").code == 0


@pytest.mark.parametrize(
    ("rename", "says"),
    [(lambda n: n.replace("model.embed_tokens", "token_embd").replace("model.layers", "blk"), "llama.cpp"),
     (lambda n: n.replace("model.embed_tokens", "embedder"), "gemma_pytorch"),
     (lambda n: n.replace("model.embed_tokens.", "token_embedding/"), "Keras Hub"),
     (lambda n: n.replace("embed_tokens", "tok_embeddings"), "Llama"),
     (lambda n: n.replace(".", "/"), "none of the names is transformers'"),
     (lambda n: n.replace("q_proj", "qkv_proj"), "qkv_proj.weight is there instead"),
     (lambda n: n.replace("_proj.weight", "_proj.B"), "is there instead"),
     (lambda n: n.replace("layers.1.", "layers.0.extra."), "says 2 layers, the weights have 1")],
)  # fmt: skip
def test_names_of_another_program(rename: Callable[[str], str], says: str, tmp_path: Path) -> None:
    """Nothing is incomplete, so a download is not advised."""
    weights = {rename(name): values for name, values in random_weights(GEMMA2).items()}
    write_checkpoint(tmp_path, GEMMA2, weights)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(tmp_path)
    assert says in str(caught.value) and "incomplete" not in str(caught.value)


def test_a_gguf_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"m\.gguf: a GGUF file"):
        Checkpoint.open(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    "extra",
    ["model.layers.0.self_attn.q_proj.lora_A.default.weight", "model.layers.0.self_attn.q_proj.base_layer.weight",
     "lm_head.original_module.weight", "model.embed_tokens.modules_to_save.default.weight"],
)  # fmt: skip
def test_an_adapter_that_is_not_merged(extra: str, tmp_path: Path) -> None:
    tensors = {**plain(random_weights(GEMMA2)), extra: raw("BF16", 4, 4)}
    write_any(tmp_path, {f"base_model.model.{name}": value for name, value in tensors.items()})
    with pytest.raises(CheckpointError, match="not merged; merge_and_unload"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("dtype", ["F64", "I64", "BOOL"])
def test_needed_tensor_of_another_type_is_named(dtype: str, tmp_path: Path) -> None:
    name = "model.layers.1.input_layernorm.weight"
    write_any(tmp_path, {**plain(random_weights(GEMMA2)), name: raw(dtype, 64)})
    with pytest.raises(CheckpointError, match=f"{name}.* is {dtype}|integers"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("model.position_ids", raw("I64", 1, 64)), ("score.weight", raw("BF16", 2, 64)), ("step", raw("I64")),
     ("model.layers.0.self_attn.rotary_emb.inv_freq", raw("F32", 8)), ("v_head.summary.weight", raw("F64", 1, 64)),
     ("model.conv", raw("F32", 2, 2, 2)), ("model.layers.1.self_attn.k_scale", raw("F32"))],
)  # fmt: skip
def test_what_gemma_lacks_is_not_judged_and_not_dropped_in_silence(name: str, tensor: Any, tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    checkpoint = Checkpoint.open(write_any(tmp_path, {name: tensor, **plain(weights)}))
    assert [name in line and "left out" in line for line in checkpoint.notes] == [True]
    assert set(checkpoint.tensors) == set(weights)


@pytest.mark.parametrize(
    "name",
    ["model.layers.2.input_layernorm.weight", "model.layers.0.self_attn.q_proj.bias",
     "model.layers.1.self_attn.q_norm.weight", "model.layers.0.mlp.extra_proj.weight"],
)  # fmt: skip
def test_what_would_change_the_answers_is_refused(name: str, tmp_path: Path) -> None:
    write_any(tmp_path, {**plain(random_weights(GEMMA2)), name: raw("BF16", 64)})
    with pytest.raises(CheckpointError, match=name):
        Checkpoint.open(tmp_path)


def test_values_are_untouched_by_what_is_left_out(tmp_path: Path) -> None:
    weights = random_weights(GEMMA2)
    checkpoint = Checkpoint.open(write_any(tmp_path, {"a.scale": raw("F8_E4M3"), **plain(weights)}))
    assert all(np.array_equal(checkpoint.tensors[name].read(), w) for name, w in weights.items())
