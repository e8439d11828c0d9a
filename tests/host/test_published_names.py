"""Names under which models are published, read as a person would."""

from __future__ import annotations

from typing import Any

import pytest

from rk_gemma.parts.ggufnames import is_model_name, is_raw_part, read_gguf_name
from rk_gemma.parts.names import NameFacts, read_name, read_names

G2 = {"family": "gemma2", "platform": "RK3588"}
RK = {"platform": "RK3588"}
NAMES: dict[str, dict[str, Any]] = {
    # repositories of Gemma
    "c01zaut/gemma-2-2b-it-rk3588-1.1.1": {**G2, "size": "2b", "variant": "it", "toolkit": "1.1.1"},
    "c01zaut/gemma-2-2b-it-RK3588-1.1.4": {**G2, "size": "2b", "variant": "it", "toolkit": "1.1.4"},
    "c01zaut/gemma-2-9b-rk3588-1.1.2": {**G2, "size": "9b", "toolkit": "1.1.2"},
    "c01zaut/gemma-2-27b-it-rk3588-1.1.1": {**G2, "size": "27b", "variant": "it", "toolkit": "1.1.1"},
    "c01zaut/SystemGemma2-2b-it-rk3588-1.1.1": {**G2, "size": "2b", "variant": "it", "toolkit": "1.1.1"},
    "c01zaut/codegemma-7b-it-rk3588-1.1.1": {**RK, "family": "gemma", "size": "7b", "variant": "it",
                                              "toolkit": "1.1.1"},
    "c01zaut/OpenLongCoT-Base-Gemma2-2B-rk3588-1.1.1": {**G2, "size": "2b", "variant": "base", "toolkit": "1.1.1"},
    "Pelochus/gemma-2b-rk3588": {**RK, "family": "gemma", "size": "2b"},
    "jxke/gemma-2b-it_rkllm": {"family": "gemma", "size": "2b", "variant": "it"},
    "thanhtantran/gemma-3-1b-it-rk3588-1.2.0": {**RK, "family": "gemma3", "size": "1b", "variant": "it",
                                                 "toolkit": "1.2.0"},
    "jamescallander/gemma-3-270m-it_w8a8_g128_rk3588.rkllm": {**RK, "family": "gemma3", "size": "270m",
                                                               "variant": "it", "dtype": "w8a8_g128"},
    "HanzoHuang/gemma-3-4b-it-RKLLM": {"family": "gemma3", "size": "4b", "variant": "it"},
    "hajajmaor/gemma-3n-E4B-it-rk3588-1.2.3": {**RK, "family": "gemma3n", "size": "e4b", "variant": "it",
                                                "toolkit": "1.2.3"},
    "ndneighbor/gemma-4-E2B-it-RKLLM-RK3588-W8A8-ctx16k": {**RK, "family": "gemma4", "size": "e2b", "variant": "it",
                                                            "dtype": "w8a8", "context": 16384},
    # files of Gemma
    "gemma-2-2b-it-rk3588-w8a8-opt-1-hybrid-ratio-0.5.rkllm": {**G2, "size": "2b", "variant": "it", "dtype": "w8a8",
                                                                "opt": 1, "hybrid": 0.5},
    "gemma-2-9b-rk3588-w8a8_g256-opt-0-hybrid-ratio-0.5.rkllm": {**G2, "size": "9b", "dtype": "w8a8_g256", "opt": 0,
                                                                  "hybrid": 0.5},
    "gemma-2b-it-rk3588.rkllm": {**RK, "family": "gemma", "size": "2b", "variant": "it"},
    "gemma-3-4b-it_w4a16_RK3576.rkllm": {"family": "gemma3", "size": "4b", "variant": "it", "dtype": "w4a16",
                                         "platform": "RK3576"},
    "gemma-4-E2B-it_w8a8_rk3588_ctx16384.rkllm": {**RK, "family": "gemma4", "size": "e2b", "variant": "it",
                                                  "dtype": "w8a8", "context": 16384},
    "gemma-3-1b-it_W8A8_RK3588.rkllm": {**RK, "family": "gemma3", "size": "1b", "variant": "it", "dtype": "w8a8"},
    "google_gemma-3-270m-w8a8-opt0-hybrid0-npu3-ctx16384-rk3588.rkllm": {
        **RK, "family": "gemma3", "size": "270m", "dtype": "w8a8", "opt": 0, "hybrid": 0.0, "cores": 3,
        "context": 16384},
    "gemma3_4b_w8a8_rk3588_h0.25.rkllm": {**RK, "family": "gemma3", "size": "4b", "dtype": "w8a8", "hybrid": 0.25},
    "gemma4-e2b-it-qat-w8a8.rkllm": {"family": "gemma4", "size": "e2b", "variant": "it", "dtype": "w8a8"},
    "google/gemma-1.1-7b-it": {"family": "gemma", "size": "7b", "variant": "it"},
    "model.rkllm": {},
    # other models: numbers that are not versions, contexts that are the model's
    "c01zaut/Qwen2.5-7B-Instruct-rk3588-v1.1.0": {**RK, "size": "7b", "variant": "it", "toolkit": "1.1.0"},
    "c01zaut/dolphin-2.9.2-qwen2-7b-rk3588-1.1.1": {**RK, "size": "7b", "toolkit": "1.1.1"},
    "c01zaut/deepseek-coder-7b-instruct-v1.5-rk3588-1.1.4": {**RK, "size": "7b", "variant": "it", "toolkit": "1.1.4"},
    "dulimov/Qwen3-4B-rk3588-1.2.1-base": {**RK, "size": "4b", "variant": "base", "toolkit": "1.2.1"},
    "dulimov/Qwen3-1.7B-rk3588-1.2.1-unsloth-16k": {**RK, "size": "1.7b", "toolkit": "1.2.1", "context": 16384},
    "dulimov/Qwen3-4B-Thinking-2507-rk3588-1.2.1": {**RK, "size": "4b", "toolkit": "1.2.1"},
    "GatekeeperZA/Qwen3-4B-Instruct-2507-RKLLM-v1.2.3": {"size": "4b", "variant": "it", "toolkit": "1.2.3"},
    "GatekeeperZA/Phi-3-mini-4k-instruct-RKLLM-v1.2.3": {"variant": "it", "toolkit": "1.2.3"},
    "Qwen3-4B-Instruct-2507-rk3588-w8a8_g128-opt-1-hybrid-ratio-0.0-4k.rkllm": {
        **RK, "size": "4b", "variant": "it", "dtype": "w8a8_g128", "opt": 1, "hybrid": 0.0, "context": 4096},
    "kamyarkazemi1373/Qwen3-4B-W8A8-RK3588": {**RK, "size": "4b", "dtype": "w8a8"},
    "Qwen3-4B-w8a8-npu.rkllm": {"size": "4b", "dtype": "w8a8"},
    "limcheekin/seed-coder-8b-rk3588-16k.w8a8.rkllm": {**RK, "size": "8b", "dtype": "w8a8", "context": 16384},
    "limcheekin/Qwen2.5-14B-Instruct-1M-rk3588-1.1.4": {**RK, "size": "14b", "variant": "it", "toolkit": "1.1.4"},
    "punchnox/Tinnyllama-1.1B-rk3588-rkllm-1.1.4": {**RK, "size": "1.1b", "toolkit": "1.1.4"},
    "TinyLlama-1.1B-Chat-v1.0-rk3588-w8a8-opt-0-hybrid-ratio-0.5.rkllm": {
        **RK, "size": "1.1b", "variant": "it", "dtype": "w8a8", "opt": 0, "hybrid": 0.5},
    "VRxiaojie/DeepSeek-R1-Distill-Qwen-1.5B-RK3588S-RKLLM1.1.4": {**RK, "size": "1.5b", "toolkit": "1.1.4"},
    "deepseek-r1-1.5B-rkllm1.1.4.rkllm": {"size": "1.5b", "toolkit": "1.1.4"},
    "DeepSeek-R1-Distill-Qwen-7B_W8A8_RK3588_o1.rkllm": {**RK, "size": "7b", "dtype": "w8a8", "opt": 1},
    "hw33/Qwen2.5-3B-Instruct_W8A8_G256_RK3588.rkllm": {**RK, "size": "3b", "variant": "it", "dtype": "w8a8_g256"},
    "3ib0n/Qwen2.5-14B-Instruct-rkllm": {"size": "14b", "variant": "it"},
    "macrae/meta-llama2-chat-7b-hf-rk3588": {**RK, "size": "7b", "variant": "it"},
    "w8a8_g512-toolkitv1.1.1": {"dtype": "w8a8_g512", "toolkit": "1.1.1"},
    "Pelochus/qwen-1_8B-rk3588": {**RK, "size": "1.8b"},
    "FydeOS/Qwen-1_8B-Chat_rkLLM": {"size": "1.8b", "variant": "it"},
    "RKNNAI/RK3588-LLM-Qwen2.5-0.5B": {**RK, "size": "0.5b"},
    "MichaelAndrewFischer/Qwen3-1.7B-Base-rk3576-w4a16-grq-v1.2.3-RKLLM": {
        "platform": "RK3576", "size": "1.7b", "variant": "base", "dtype": "w4a16", "toolkit": "1.2.3"},
    "X_RK3576_w4a16_g128.rkllm": {"platform": "RK3576", "dtype": "w4a16_g128"},
    "llm-jp-3-1.8b-instruct-opt-1-w8a8-hybrid-ratio-0.0-rk3588.rkllm": {
        **RK, "size": "1.8b", "variant": "it", "dtype": "w8a8", "opt": 1, "hybrid": 0.0},
    "Qwen3-0.6B_W8A8_RK3588_2048.rkllm": {**RK, "size": "0.6b", "dtype": "w8a8", "context": 2048},
    "Qwen2.5-1.5B-Instruct_W8A8_RK3588_16k.rkllm": {**RK, "size": "1.5b", "variant": "it", "dtype": "w8a8",
                                                    "context": 16384},
    "qwen2_5_1_5b_instruct_w8a8_opt1_ctx2048_rk3588.rkllm": {**RK, "size": "1.5b", "variant": "it", "dtype": "w8a8",
                                                             "opt": 1, "context": 2048},
    "qwen3_0.6b_w4a16_g64_rk3562.rkllm": {"platform": "RK3562", "size": "0.6b", "dtype": "w4a16_g64"},
    "decoder_qwen3.w4a16_g128.rk3576.rkllm": {"platform": "RK3576", "dtype": "w4a16_g128"},
    "language_model_w8a8.rkllm": {"dtype": "w8a8"},
    "phi-3-mini-4k-rk3588.rkllm": {**RK},
    "Pelochus/tinyllama-v1-rk3588": {**RK},
    "imkebe/QwQ-32B-Preview-rk3588-1.1.3": {**RK, "size": "32b", "toolkit": "1.1.3"},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name(name: str) -> None:
    found = read_name(name)
    assert found == NameFacts(model=found.model, **NAMES[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("google/paligemma-3b-mix-224", "PaliGemma"), ("google/recurrentgemma-2b-it", "RecurrentGemma"),
     ("google/shieldgemma-2b", "ShieldGemma"), ("google/t5gemma-2b-2b-ul2", "T5Gemma"),
     ("google/embeddinggemma-300m", "EmbeddingGemma"), ("google/medgemma-4b-it", "MedGemma")],
)  # fmt: skip
def test_gemmas_of_other_kinds(name: str, kind: str) -> None:
    found = read_name(name)
    assert (found.family, found.kind) == ("", kind)


def test_what_a_file_says_goes_before_its_branch_and_its_repository() -> None:
    found = read_names(
        "macrae/Llama-3-2-3B-rk3588", "meta-llama_Llama-3.2-3B-rk3588.rkllm", "w8a8_g512-toolkitv1.1.1"
    )
    assert (found.platform, found.dtype, found.toolkit, found.size) == ("RK3588", "w8a8_g512", "1.1.1", "3b")
    found = read_names("Pelochus/gemma-2b-rk3588", "gemma-2b-it-rk3588.rkllm")
    assert found.variant == "it"
    found = read_names("c01zaut/gemma-2-9b-it-rk3588-1.1.1", "model.rkllm")
    assert (found.family, found.size, found.variant, found.toolkit) == ("gemma2", "9b", "it", "1.1.1")
    found = read_names("c01zaut/X-rk3588-1.1.1", "gemma-2-9b-it-w8a8-opt-0-hybrid-ratio-0.0.rkllm")
    assert (found.opt, found.hybrid) == (0, 0.0)
    found = read_names("HanzoHuang/gemma-3-4b-it-RKLLM", "gemma-3-4b-it_w4a16_RK3576.rkllm")
    assert (found.platform, found.dtype) == ("RK3576", "w4a16")


@pytest.mark.parametrize(
    ("path", "quant", "shards"),
    [
        ("gemma-1.1-7b-it-Q4_K_M.gguf", "Q4_K_M", 0),
        ("gemma-1.1-7b-it.Q2_K.gguf", "Q2_K", 0),
        ("google_gemma-3-1b-it-bf16.gguf", "BF16", 0),
        ("gemma-3-1b-it-qat-Q4_0.gguf", "Q4_0", 0),
        ("X.i1-Q4_K_M.gguf", "Q4_K_M", 0),
        ("X.i1-IQ3_XS.gguf", "IQ3_XS", 0),
        ("X-IQ3_XXS.gguf", "IQ3_XXS", 0),
        ("gemma-4-E2B-it-qat-UD-Q4_K_XL.gguf", "Q4_K_XL", 0),
        ("gemma-2-9b-it-Q6_K_L.gguf", "Q6_K_L", 0),
        ("gemma-2-9b-it-Q6_K.gguf", "Q6_K", 0),
        ("2b_pt_v2.gguf", "", 0),
        ("gemma-3-1b-it-q4_0.gguf", "Q4_0", 0),
        ("gemma-2-2b-it.IQ1_M.gguf", "IQ1_M", 0),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M", 2),
        ("UD-Q4_K_XL/gemma-UD-Q4_K_XL-00002-of-00003.gguf", "Q4_K_XL", 3),
        ("gemma-2b-it-f32.gguf", "F32", 0),
        ("gemma-2-2b-it-F16.gguf", "F16", 0),
        ("Q8_0/model.gguf", "Q8_0", 0),
    ],
)
def test_a_gguf_name(path: str, quant: str, shards: int) -> None:
    found = read_gguf_name(path)
    assert (found.quant, found.shards) == (quant, shards)
    assert is_model_name(path)


@pytest.mark.parametrize(
    "path",
    ["mmproj-google_gemma-3-4b-it-f16.gguf", "mmproj-F16.gguf", "google_gemma-3-1b-it-imatrix.gguf",
     "X.imatrix.gguf", "imatrix_unsloth.gguf_file", "mtp-gemma.gguf", "X.Q8_0.gguf.part1of2", "X.imatrix.dat",
     "README.md", "X-chunk-001-of-018.gguf", "X.gguf.a", "pirate.lora.gguf"],
)  # fmt: skip
def test_what_is_not_a_model(path: str) -> None:
    assert not is_model_name(path)


def test_raw_parts_are_known() -> None:
    assert is_raw_part("X.Q8_0.gguf.part1of2") and not is_raw_part("X-00001-of-00002.gguf")
