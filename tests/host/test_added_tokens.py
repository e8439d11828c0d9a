"""Added tokens and chat templates: taken as they are, or refused with what to do. Never dropped in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import pytest
import yaml
from hosttools import errors_of, write_checkpoint
from simreader import read_sim
from tokenkit import CHATML, checkpoint_with_tokenizer, pieces, put, state_added

from rk_gemma.checkpoint.chattemplate import OFFICIAL
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.bundle import Bundle, read_manifest
from rk_gemma_runtime.chat.tokenizer import Tokenizer
from rk_gemma_runtime.errors import BundleError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIM = Options("sim", "w8a8", "none")
WHERE = ["added_tokens.json", "tokenizer_config.json", "tokenizer.json"]


def state_template(directory: Path, where: str, text: str) -> None:
    if where == "chat_template.jinja":
        (directory / where).write_text(text)
    elif where == "list":
        entries = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": text}]
        put(directory / "tokenizer_config.json", {"chat_template": entries})
    else:
        put(directory / where, {"chat_template": text})


@pytest.mark.parametrize("where", WHERE)
def test_added_tokens_are_taken_along(where: str, tmp_path: Path) -> None:
    """They print what they are, and text becomes them, unless they are special."""
    size = len(pieces())
    source = checkpoint_with_tokenizer(tmp_path / "src", 8)
    special = where == "added_tokens.json"  # it does not say; text must not become what may shape a conversation
    state_added(source, where, {size: "<tool_call>", size + 3: "[two words]"}, special)
    lines: list[str] = []
    bundle = export(source, tmp_path / "out", Options(), lines.append)
    assert sum(f"<tool_call> ({size}), [two words] ({size + 3})" in line for line in lines) == 1
    tokenizer = Tokenizer.open(bundle.path("tokenizer.model"))
    assert tokenizer.size == size + 4
    text = "call <tool_call>now[two words]"
    ids = tokenizer.encode(text)
    assert ({size, size + 3} <= set(ids)) != special
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([size]) == ("" if special else "<tool_call>")
    assert read_sim(tmp_path / "out" / "model.sim").pieces()[size] == (b"" if special else b"<tool_call>")
    tokens = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields["tokenizer.ggml.tokens"].contents()
    assert (tokens[size], tokens[size + 3]) == ("<tool_call>", "[two\u2581words]")


def test_a_renamed_piece(tmp_path: Path) -> None:
    unused = next(n for n, (piece, _, _) in enumerate(pieces()) if piece == "<unused0>")
    source = checkpoint_with_tokenizer(tmp_path / "src")
    state_added(source, "tokenizer_config.json", {unused: "<think>"}, special=False)
    bundle = export(source, tmp_path / "out", SIM)
    tokenizer = Tokenizer.open(bundle.path("tokenizer.model"))
    assert tokenizer.encode("<think>") == [unused] and tokenizer.decode([unused]) == "<think>"


@pytest.mark.parametrize("where", WHERE[1:])
def test_gemmas_own_tokens_are_nothing_new(where: str, tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    own = {n: piece for n, (piece, _, kind) in enumerate(pieces()) if kind in (2, 3, 4)}
    state_added(source, where, own if where != "tokenizer.json" else {})
    lines: list[str] = []
    bundle = export(source, tmp_path / "out", SIM, lines.append)
    assert lines == []
    assert bundle.path("tokenizer.model").read_bytes() == (source / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("where", WHERE)
def test_an_added_token_beyond_the_model(where: str, tmp_path: Path) -> None:
    size = len(pieces())
    source = checkpoint_with_tokenizer(tmp_path / "src", 1)
    state_added(source, where, {size: "[PAD]", size + 1: "<far>"})
    with pytest.raises(
        CheckpointError, match=rf"added token '<far>' has id {size + 1}, the model has {size + 1} rows"
    ):
        export(source, tmp_path / "out", SIM)


def test_an_added_token_that_is_there_under_another_id(tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", 1)
    state_added(source, "added_tokens.json", {len(pieces()): "<mask>"})
    with pytest.raises(CheckpointError, match="'<mask>' has two ids"):
        export(source, tmp_path / "out", SIM)


@pytest.mark.parametrize("tree", [{"added_tokens_decoder": {"x": {"content": "a"}}}, {"added_tokens_decoder": [1]}])
def test_a_damaged_table(tree: Any, tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    put(source / "tokenizer_config.json", tree)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        export(source, tmp_path / "out", SIM)


@pytest.mark.parametrize("number", [-1, -256, True, 1.5, "7", None])
@pytest.mark.parametrize("where", WHERE)
def test_an_id_that_is_none(where: str, number: Any, tmp_path: Path, main: Callable[..., Any]) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", 8)
    state_added(source, where, {number: "<x>"})
    if where == "tokenizer_config.json" and number == "7":
        number = "seven"  # there, ids are keys, and so texts
        state_added(source, where, {number: "<x>"})
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert where in errors_of(done.stderr)[0] and "impossible id" in errors_of(done.stderr)[0]


@pytest.mark.parametrize("content", ["\ud800", "a\0b", "x\udfffy"])
@pytest.mark.parametrize("where", WHERE)
def test_a_text_that_no_file_can_hold(where: str, content: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src", 8)
    state_added(source, where, {len(pieces()): content})
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    assert where in errors_of(done.stderr)[0] and "impossible text" in errors_of(done.stderr)[0]


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.json"])
def test_a_template_that_no_file_can_hold(where: str, tmp_path: Path, main: Callable[..., Any]) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    put(source / where, {"chat_template": "{{ x }}\ud800"})
    done = main("export", source, "-o", tmp_path / "b", "--chat-template", "none")
    assert done.code == 3 and where in errors_of(done.stderr)[0]


TEMPLATES = [
    (CHATML, "ChatML"),
    ("{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}", "Mistral"),
    ("<|start_header_id|>{{ messages[0]['role'] }}<|end_header_id|>", "Llama 3"),
    ("### Instruction:\n{{ messages[0]['content'] }}\n### Response:\n", "Alpaca"),
    ("<|user|>\n{{ messages[0]['content'] }}<|assistant|>", "Zephyr"),
    ("USER: {{ messages[0]['content'] }} ASSISTANT:", "Vicuna"),
    ("{{ messages[0]['content'] }}", "not Gemma's"),
    (f"{OFFICIAL}<|im_start|>", "ChatML"),
]


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json", "list"])
@pytest.mark.parametrize(("text", "name"), TEMPLATES)
def test_another_template_is_refused_by_name(
    text: str, name: str, where: str, tmp_path: Path, main: Callable[..., Any]
) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    state_template(source, where, text)
    done = main("export", source, "-o", tmp_path / "b")
    assert (done.code, len(done.stderr.splitlines())) == (3, 1)
    said = errors_of(done.stderr)[0]
    assert name in said and "--chat-template none" in said
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_chatml_by_its_tokens_alone(tmp_path: Path) -> None:
    """Older fine-tunes keep the template in their README."""
    size = len(pieces())
    source = checkpoint_with_tokenizer(tmp_path / "src", 2, eos_token_id=size + 1)
    state_added(source, "added_tokens.json", {size: "<|im_start|>", size + 1: "<|im_end|>"})
    lines: list[str] = []
    with pytest.raises(CheckpointError, match="its chat template is ChatML"):
        export(source, tmp_path / "out", SIM, lines.append)
    assert lines == []  # a refusal is one line


def test_markers_that_were_renamed(tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    at = {piece: n for n, (piece, _, _) in enumerate(pieces())}
    renamed = {at["<start_of_turn>"]: "<|im_start|>", at["<end_of_turn>"]: "<|im_end|>"}
    state_added(source, "tokenizer_config.json", renamed)
    with pytest.raises(CheckpointError, match="ChatML"):
        export(source, tmp_path / "out", SIM)
    bundle = export(source, tmp_path / "none", Options("none", template="none"))
    assert bundle.manifest.template == "none"


def test_none_makes_a_bundle_for_ids(tmp_path: Path) -> None:
    """The GGUF keeps words and template for programs that render Jinja."""
    size = len(pieces())
    source = checkpoint_with_tokenizer(tmp_path / "src", 2, eos_token_id=size + 1)
    state_added(source, "added_tokens.json", {size: "<|im_start|>", size + 1: "<|im_end|>"})
    state_template(source, "chat_template.jinja", CHATML)
    bundle = export(source, tmp_path / "out", Options(template="none"))
    assert (bundle.manifest.template, bundle.manifest.tokenizer, bundle.tokenizer_file) == ("none", None, None)
    assert bundle.manifest.eos == (size + 1,)
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == CHATML
    assert fields["tokenizer.ggml.tokens"].contents()[size] == "<|im_start|>"


def test_gemma_as_asked(tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    state_template(source, "chat_template.jinja", CHATML)
    lines: list[str] = []
    bundle = export(source, tmp_path / "out", Options("none", template="gemma"), lines.append)
    assert bundle.manifest.template == "gemma" and "ChatML" in "".join(lines)
    assert gguf.GGUFReader(bundle.path("model.gguf")).fields["tokenizer.chat_template"].contents() == OFFICIAL


@pytest.mark.parametrize("change", [str, lambda t: t + "\n", lambda t: t.replace("\n", "\\n")])
def test_gemmas_own_template(change: Callable[[str], str], tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    state_template(source, "tokenizer_config.json", change(OFFICIAL))
    lines: list[str] = []
    assert export(source, tmp_path / "out", SIM, lines.append).manifest.template == "gemma"
    assert lines == []


def test_a_variant_of_gemmas_template_is_said(tmp_path: Path) -> None:
    source = checkpoint_with_tokenizer(tmp_path / "src")
    state_template(source, "chat_template.jinja", OFFICIAL.replace("System role not supported", "no"))
    lines: list[str] = []
    assert export(source, tmp_path / "out", SIM, lines.append).manifest.template == "gemma"
    assert "not Gemma's word for word" in "".join(lines)


def test_usage(tmp_path: Path, main: Callable[..., Any]) -> None:
    source = write_checkpoint(tmp_path / "src")
    for wish in ("chatml", "gemma"):
        done = main("export", source, "-o", tmp_path / "b", "--chat-template", wish)
        assert done.code == 2 and "--chat-template" in errors_of(done.stderr)[0]
    assert main("export", source, "-o", tmp_path / "b", "--chat-template", "none").code == 0


def test_the_manifests_template_is_one_of_two(tmp_path: Path) -> None:
    bundle = export(checkpoint_with_tokenizer(tmp_path / "src"), tmp_path / "out", SIM)
    path = bundle.directory / "bundle.yaml"
    tree = yaml.safe_load(path.read_text())
    for name, usable in (("none", True), ("chatml", False), (None, False)):
        path.write_text(yaml.safe_dump({**tree, "chat": {"template": name}}))
        if usable:
            assert Bundle.open(bundle.directory).manifest.template == "none"
        else:
            with pytest.raises(BundleError, match=r"unknown chat\.template .*choose gemma or none"):
                read_manifest(bundle.directory)
