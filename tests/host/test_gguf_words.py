"""model.gguf for other programs: the keys that they go by, and the same answers from llama.cpp's own server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import gguf
import pytest
from hosttools import DATA, ROOT, environment, write_checkpoint
from tokenkit import checkpoint_with_tokenizer, pieces, put

from rk_gemma.checkpoint.chattemplate import OFFICIAL
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.chat.template import render
from rk_gemma_runtime.chat.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SERVER = """
import json, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx = sys.argv[1], 256
params.warmup, params.fit_params, params.verbosity = False, False, 0
server = xllamacpp.Server(params)
for verb, body in json.load(sys.stdin):
    call = getattr(server, verb)
    call(json.dumps({**body, "temperature": 0, "top_k": 1, "max_tokens": 32, "cache_prompt": False}), print)
"""


def keys(source: Path, target: Path, quant: str = "Q8_0", **options: Any) -> dict[str, Any]:
    export(source, target, Options("none", "w8a8", quant, **options))
    fields = gguf.GGUFReader(target / "model.gguf").fields
    return {name.removeprefix("tokenizer.ggml."): field.contents() for name, field in fields.items()}


@pytest.mark.parametrize("kind", ["model", "json"])
def test_keys_about_text(kind: str, tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", kind=kind)
    found = keys(source, tmp_path / "out")
    assert (found["bos_token_id"], found["eos_token_id"], found["eot_token_id"]) == (2, 1, 107)
    assert (found["padding_token_id"], found["unknown_token_id"]) == (0, 3)
    assert (found["add_bos_token"], found["add_eos_token"], found["add_space_prefix"]) == (True, False, False)
    assert found["tokenizer.chat_template"] == OFFICIAL
    assert (found["general.type"], found["general.quantization_version"]) == ("model", gguf.GGML_QUANT_VERSION)


def test_keys_without_a_vocabulary(tmp_path: Path) -> None:
    found = keys(write_checkpoint(tmp_path / "src"), tmp_path / "out")
    assert not {"tokenizer.chat_template", "padding_token_id", "unknown_token_id"} & found.keys()
    assert not found["add_bos_token"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [(1, (1, 107, None)), ([1, 107], (1, 107, None)), ([107, 1], (1, 107, None)), (107, (107, None, None)),
     ([1, 108], (1, 107, 108)), ([108, 1], (1, 107, 108))],
)  # fmt: skip
def test_each_end_has_the_key_of_its_kind(ends: Any, expected: tuple[Any, ...], tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    put(source / "generation_config.json", {"eos_token_id": ends})
    found = keys(source, tmp_path / "out")
    assert tuple(found.get(f"{kind}_token_id") for kind in ("eos", "eot", "eom")) == expected


def test_the_name_does_not_depend_on_the_target(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "gemma-2-tuned")
    names = {keys(source, tmp_path / target)["general.name"] for target in ("a", "b")}
    assert names == {"gemma-2-tuned"}
    assert (tmp_path / "a" / "model.gguf").read_bytes() == (tmp_path / "b" / "model.gguf").read_bytes()


def test_the_name_of_a_repository(tmp_path: Path) -> None:
    place = tmp_path / "models--google--gemma-2-2b-it" / "snapshots" / ("c" * 40)
    assert keys(write_checkpoint(place), tmp_path / "out")["general.name"] == "gemma-2-2b-it"


@pytest.mark.parametrize("name", ["tiny-gemma1", "tiny-gemma2"])
def test_the_name_is_not_empty(name: str, tmp_path: Path) -> None:
    assert keys(DATA / name, tmp_path / "out")["general.name"] == name


@pytest.mark.slow
def test_llama_cpps_server_gives_the_runtimes_answers(tmp_path: Path) -> None:
    """Messages and text as llama-server and Ollama take them, against ids as the runtime sends them."""
    pieces()  # skips without the demo's tokenizer
    bundle = export(ROOT / "demo" / "checkpoint", tmp_path / "out", Options("none"))
    tokenizer = Tokenizer.open(bundle.path("tokenizer.model"))
    turns = [
        {"role": "user", "content": " What does errno 14 mean?\n"},
        {"role": "assistant", "content": "Bad address."},
        {"role": "user", "content": "And errno 12?"},
    ]
    text = "The NPU is  not <b>here</b>"
    said = answered(bundle.path("model.gguf"), [
        ("handle_chat_completions", {"messages": turns[:1]}),
        ("handle_completions", {"prompt": render(turns[:1], tokenizer).ids}),
        ("handle_chat_completions", {"messages": turns}),
        ("handle_completions", {
            "prompt": render(turns, tokenizer).ids
        }),
        ("handle_completions", {"prompt": text}),
        ("handle_completions", {"prompt": [tokenizer.bos, *tokenizer.encode(text)]}),
    ])  # fmt: skip
    for theirs, ours in (said[0:2], said[2:4], said[4:6]):
        assert theirs == ours


def answered(model: Path, jobs: list[tuple[str, dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """Text, reason and length of the prompt for each job."""
    command = [sys.executable, "-c", SERVER, str(model)]
    done = subprocess.run(
        command, input=json.dumps(jobs).encode(), capture_output=True, env=environment(), check=True, timeout=120
    )
    found = []
    for line in done.stdout.splitlines():
        tree = json.loads(line)
        choice = tree["choices"][0]
        content = choice["text"] if "text" in choice else choice["message"]["content"]
        found.append((content, choice["finish_reason"], tree["usage"]["prompt_tokens"]))
    return found
