"""NAME.lora.sim and NAME.lora.gguf: both mean the update that PEFT computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from hosttools import DATA, GEMMA1, GEMMA2, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from lorakit import MODULES, halves, module_names, update, write_peft
from simreader import read_container

from rk_gemma.checkpoint import read_spec
from rk_gemma.export.lora.adapter import LoraAdapter
from rk_gemma.export.lora.gguflora import write_lora_gguf
from rk_gemma.export.lora.simlora import write_lora_sim
from rk_gemma.export.lora.sources import LoraSource
from rk_gemma.export.pipeline import Options, export

if TYPE_CHECKING:
    from pathlib import Path

    from hosttools import Arrays
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ALL = module_names(range(2))
GGUF = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
        "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip
MODELS = {"gemma": GEMMA1, "gemma2": GEMMA2}
FOLDED = (16 / 24) ** 0.5  # GEMMA2's head_dim and query_pre_attn_scalar: what model.gguf has in q_proj


def written(
    root: Path, model: dict[str, Any], weights: Arrays, dtype: str = "F32", **changes: Any
) -> tuple[Path, Path]:
    """The two files."""
    root.mkdir(exist_ok=True)
    spec = read_spec(write_checkpoint(root / "base", model, {}))
    adapter = LoraAdapter.open(LoraSource("x", write_peft(root / "peft", weights, dtype, **changes)), spec)
    write_lora_sim(root / "x.lora.sim", adapter, spec, lambda done: None)
    write_lora_gguf(root / "x.lora.gguf", adapter, spec, lambda done: None)
    return root / "x.lora.sim", root / "x.lora.gguf"


def sim_updates(path: Path) -> dict[str, Floats]:
    """By module as transformers names it: scaling * B A, as docs/bundle.md states it."""
    file, found = read_container(path), {}
    for name in [n for n in file.tensors if n.endswith(".lora_a")]:
        _, layer, short, _ = name.split(".")
        module = f"{short}_proj"
        a, b = (file.tensors[f"{name[:-1]}{half}"].astype(np.float64) for half in "ab")
        found[module_names([int(layer)], [module])[0]] = float(file.keys["scaling"]) * (b @ a)
    return found


def gguf_updates(path: Path) -> dict[str, Floats]:
    """By module: alpha / rank * B A, as llama.cpp computes it."""
    reader, found = gguf.GGUFReader(path), {}
    tensors = {t.name: t for t in reader.tensors}
    alpha = reader.fields["adapter.lora.alpha"].contents()
    for name in [n for n in tensors if n.endswith(".lora_a")]:
        assert list(tensors[name].shape[::-1]) == list(tensors[name].data.shape)
        _, layer, kind, _, _ = name.split(".")
        module = next(m for m, theirs in GGUF.items() if theirs == kind)
        a, b = (tensors[f"{name[:-1]}{half}"].data.astype(np.float64) for half in "ab")
        found[module_names([int(layer)], [module])[0]] = alpha / len(a) * (b @ a)
    return found


def check(files: tuple[Path, Path], truth: dict[str, Floats], folded: float) -> None:
    ours, theirs = sim_updates(files[0]), gguf_updates(files[1])
    assert set(ours) == set(theirs) == set(truth)
    for name, wanted in truth.items():
        near = {"rtol": 1e-6, "atol": 1e-6 * np.abs(wanted).max(initial=1e-30)}
        np.testing.assert_allclose(ours[name], wanted, **near)
        np.testing.assert_allclose(theirs[name], wanted * (folded if name.endswith("q_proj") else 1), **near)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("family", MODELS)
def test_every_dtype(family: str, dtype: str, tmp_path: Path) -> None:
    weights = halves(MODELS[family], ALL, size=0.25)
    files = written(tmp_path, MODELS[family], weights, dtype, lora_alpha=6)
    check(files, {n: update(weights, n, 6) for n in ALL}, FOLDED if family == "gemma2" else 1)


def test_keys_and_names_of_the_simulators_file(tmp_path: Path) -> None:
    sim, _ = written(tmp_path, GEMMA2, halves(GEMMA2, ALL), use_rslora=True, lora_alpha=5)
    file = read_container(sim)
    assert file.keys == {"kind": "lora", "family": "gemma2", "layers": "2", "hidden": "64", "scaling": "2.5"}
    assert set(file.dtypes.values()) == {"f32"}
    shorts = [m.removesuffix("_proj") for m in MODULES]
    assert list(file.tensors) == [f"blk.{i}.{s}.lora_{h}" for i in range(2) for s in shorts for h in "ab"]
    assert file.tensors["blk.1.down.lora_a"].shape == (4, 128)
    assert file.tensors["blk.1.down.lora_b"].shape == (64, 4)


@pytest.mark.parametrize("family", ["tiny-gemma1", "tiny-gemma2"])
def test_facts_and_names_of_llamas_file(family: str, tmp_path: Path) -> None:
    """Every tensor's name is one of the base's, in the same bundle."""
    model = {"tiny-gemma1": "gemma", "tiny-gemma2": "gemma2"}[family]
    shape = read_spec(DATA / family).shape
    config = {**MODELS[model], "hidden_size": shape.hidden, "intermediate_size": shape.ffn,
              "head_dim": shape.head_dim, "num_attention_heads": shape.heads,
              "num_key_value_heads": shape.kv_heads, "num_hidden_layers": 4,
              "vocab_size": shape.vocab}  # fmt: skip
    source = write_peft(tmp_path / "peft", halves(config, module_names(range(4))), lora_alpha=6)
    export(DATA / family, tmp_path / "b", Options("none", cpu="Q8_0", adapters=(LoraSource("one", source),)))
    base, lora = (gguf.GGUFReader(tmp_path / "b" / name) for name in ("model.gguf", "one.lora.gguf"))
    facts = {key: lora.fields[key].contents() for key in lora.fields if not key.startswith("GGUF.")}
    assert facts == {
        "general.architecture": model, "general.type": "adapter", "general.name": "one", "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
    }  # fmt: skip
    names = [t.name.rpartition(".")[0] for t in lora.tensors]
    assert len(names) == 4 * 7 * 2
    assert set(names) < {t.name for t in base.tensors}
    assert {t.tensor_type for t in lora.tensors} == {gguf.GGMLQuantizationType.F32}


def test_layers_and_modules_that_are_left_out(tmp_path: Path) -> None:
    names = module_names([1], ["q_proj", "down_proj"])
    weights = halves(GEMMA2, names)
    changes = {"target_modules": ["self_attn.q_proj", "down_proj"], "layers_to_transform": [1]}
    check(written(tmp_path, GEMMA2, weights, **changes), {n: update(weights, n) for n in names}, FOLDED)


@pytest.mark.parametrize("layers", [1, [1], [0, 1], None])
@pytest.mark.parametrize("target", ["all-linear", r".*\.(q|down)_proj", None, ["q_proj", "down_proj"]])
def test_ways_to_name_the_targets(target: Any, layers: Any, tmp_path: Path) -> None:
    there = [layers] if isinstance(layers, int) else layers or [0, 1]
    weights = halves(GEMMA2, module_names(there, ["q_proj", "down_proj"]))
    sim, _ = written(tmp_path, GEMMA2, weights, target_modules=target, layers_to_transform=layers)
    assert len(sim_updates(sim)) == 2 * len(there)


def test_patterns(tmp_path: Path) -> None:
    """The first key that fits the end of a module's name counts; ^ fits the whole of it."""
    ranks = {n: 8 if "q_proj" in n else 2 if n == "model.layers.1.mlp.up_proj" else 4 for n in ALL}
    alphas = {n: 32.0 if n == "model.layers.0.self_attn.k_proj" else 3.0 if ".1.mlp." in n else 6.0 for n in ALL}
    weights = halves(GEMMA2, ALL, ranks)
    files = written(
        tmp_path, GEMMA2, weights, r=4, lora_alpha=6,
        rank_pattern={"q_proj": 8, "layers.1.mlp.up_proj": 2},
        alpha_pattern={"^model.layers.0.self_attn.k_proj": 32, r"layers.(1|7).mlp.\w+": 3, "up_proj": 6, "proj": 99},
    )  # fmt: skip
    check(files, {n: update(weights, n, alphas[n]) for n in ALL}, FOLDED)


SMALL = {**GEMMA2, "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 4, "query_pre_attn_scalar": 9, "intermediate_size": 8}  # fmt: skip
alphas = st.floats(2**-10, 2**10) | st.integers(1, 100)


@given(
    names=st.lists(st.sampled_from(ALL), min_size=1, max_size=5, unique=True),
    rank=st.integers(1, 9), alpha=alphas, stable=st.booleans(), data=st.data(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_plain_lora(
    names: list[str], rank: int, alpha: float, stable: bool, data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    ranks = {n: data.draw(st.sampled_from([rank, 1, 5])) for n in names}
    own = {n: data.draw(st.just(alpha) | alphas | st.floats(-9, 9)) for n in names}
    weights = halves(SMALL, names, ranks)
    files = written(
        tmp_path_factory.getbasetemp() / "any-lora", SMALL, weights, r=rank, lora_alpha=alpha, use_rslora=stable,
        target_modules="all-linear",
        rank_pattern={n: r for n, r in ranks.items() if r != rank},
        alpha_pattern={f"^{n}": a for n, a in own.items() if a != alpha},
    )  # fmt: skip
    check(files, {n: update(weights, n, own[n], stable) for n in names}, (4 / 9) ** 0.5)


def test_the_widest_bounds_stay_finite(tmp_path: Path) -> None:
    names = module_names([0], ["q_proj", "k_proj"])
    ranks = {names[0]: 9, names[1]: 1}
    weights = {key: np.full_like(values, 9.9e5) for key, values in halves(SMALL, names, ranks).items()}
    files = written(
        tmp_path, SMALL, weights, r=1, lora_alpha=1e-6, target_modules="all-linear",
        rank_pattern={"q_proj": 9}, alpha_pattern={"q_proj": 1e6},
    )  # fmt: skip
    check(
        files, {names[0]: update(weights, names[0], 1e6), names[1]: update(weights, names[1], 1e-6)}, (4 / 9) ** 0.5
    )
