"""Bundles that are none: each is one BundleError, and one line of `rk-gemma inspect` with exit code 3."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hosttools import errors_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rk_gemma_runtime.bundle import MANIFEST_LIMIT, SCHEMA, Bundle, read_manifest
from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = b"GGUF and so on"
FACTS = {"sha256": hashlib.sha256(WEIGHTS).hexdigest(), "bytes": len(WEIGHTS)}
GOOD: dict[str, Any] = {
    "schema": SCHEMA, "model": {"family": "gemma2", "size": "2b"}, "chat": {"template": "none"}, "context": 4096,
    "vocab": 256000, "bos": 2, "eos": [1, 107], "npu": None, "cpu": {"file": "model.gguf", "quant": "Q8_0"},
    "tokenizer": None, "adapters": [], "quality": {}, "files": {"model.gguf": FACTS},
}  # fmt: skip


def placed(directory: Path, manifest: str | bytes | dict[str, Any], weights: bytes = WEIGHTS) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "model.gguf").write_bytes(weights)
    text = yaml.safe_dump(manifest) if isinstance(manifest, dict) else manifest
    (directory / "bundle.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return directory


def named(name: Any) -> dict[str, Any]:
    """The good manifest with its weights under another name."""
    return {**GOOD, "cpu": {"file": name, "quant": "Q8_0"}, "files": {name: FACTS}}


BAD: dict[str, str | bytes | dict[str, Any]] = {
    "empty": "",
    "not a mapping": "- a\n- b\n",
    "a number": "3",
    "not YAML": "{a: [",
    "tab": "a:\n\t- b",
    "control characters": "schema: \x00",
    "not UTF-8": b"schema: \xff\xfe",
    "python tag": "!!python/object:os.system {}",
    "python tag inside": yaml.safe_dump(GOOD) + "x: !!python/object/apply:os.system ['touch /tmp/rk-gemma-owned']\n",
    "unknown tag": "!thing {}",
    "two documents": yaml.safe_dump(GOOD) + "---\n" + yaml.safe_dump(GOOD),
    "no such day": yaml.safe_dump(GOOD) + "noted: 2024-13-45\n",
    "no such number": yaml.safe_dump(GOOD) + "noted: !!int x\n",
    "no such bool": yaml.safe_dump(GOOD) + "noted: !!bool perhaps\n",
    "no such time": yaml.safe_dump(GOOD) + "noted: !!timestamp never\n",
    "deep": "[" * 1_000,
    "aliases": yaml.safe_dump(GOOD) + "a: &a [1]\nb: [*a, *a]\n",
    "aliases that explode": "a: &a [x, x]\n"
    + "".join(f"{n}: &{n} [*{m}, *{m}]\n" for m, n in pairwise("abcdefghijklmnopqrstuvwxyz")),
    "an alias of itself": yaml.safe_dump(GOOD) + "a: &a [*a]\n",
    "merged": yaml.safe_dump(GOOD) + "a: &a {b: 1}\nc: {<<: *a}\n",
    "another template": {**GOOD, "chat": {"template": "chatml"}},
    "no template": {**GOOD, "chat": {"template": None}},
    "a list of templates": {**GOOD, "chat": {"template": ["gemma"]}},
    "a large template": {**GOOD, "chat": {"template": "{% for m in messages %}" * 100}},
    "huge": "#" * (MANIFEST_LIMIT + 1),
    "no schema": {k: v for k, v in GOOD.items() if k != "schema"},
    "newer schema": {**GOOD, "schema": "rk-gemma-bundle/2"},
    "schema is a list": {**GOOD, "schema": [SCHEMA]},
    "other program": {**GOOD, "schema": "ollama/1"},
    "no files": {k: v for k, v in GOOD.items() if k != "files"},
    "no eos": {k: v for k, v in GOOD.items() if k != "eos"},
    "files is a list": {**GOOD, "files": ["model.gguf"]},
    "model is a list": {**GOOD, "model": ["gemma2"]},
    "model with a new key": {**GOOD, "model": {**GOOD["model"], "colour": "red"}},
    "model with a key that is no text": {**GOOD, "model": {3: "gemma2"}},
    "npu is text": {**GOOD, "npu": "model.rkllm"},
    "npu lacks all": {**GOOD, "npu": {"file": "model.rkllm"}},
    "cpu not under files": {**GOOD, "files": {}},
    "context 0": {**GOOD, "context": 0},
    "context is infinite": {**GOOD, "context": float("inf")},
    "bytes is infinite": {**GOOD, "files": {"model.gguf": {**FACTS, "bytes": float("inf")}}},
    "bos is text": {**GOOD, "bos": "two"},
    "eos is a number": {**GOOD, "eos": 1},
    "eos is empty": {**GOOD, "eos": []},
    "chat is text": {**GOOD, "chat": "gemma"},
    "quality is text": {**GOOD, "quality": "good"},
    "quality holds itself": yaml.safe_dump(GOOD).replace("quality: {}", "quality: &a {x: *a}"),
    "file name is a number": named(5),
    "file name is a list": {**GOOD, "cpu": {"file": ["model.gguf"], "quant": "Q8_0"}},
    "file name is nothing": {**GOOD, "cpu": {"file": None, "quant": "Q8_0"}},
    "parent": named("../model.gguf"),
    "parent alone": named(".."),
    "folder": named("a/model.gguf"),
    "absolute": named("/etc/passwd"),
    "the manifest": named("bundle.yaml"),
    "empty name": named(""),
    "nul": named("a\0b"),
    "newline": named("a\nb"),
    "escape": named("a\x1b[31mb"),
    "long name": named("a" * 300),
    "adapter outside": {**GOOD, "adapters": ["../../lora"]},
    "missing file": named("other.gguf"),
    "wrong size": {**GOOD, "files": {"model.gguf": {**FACTS, "bytes": 3}}},
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, tmp_path: Path) -> None:
    bundle = placed(tmp_path / "b", BAD[name])
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle)
    assert str(caught.value).isprintable()


def test_the_good_one_is_good(tmp_path: Path) -> None:
    opened = Bundle.open(placed(tmp_path / "b", GOOD))
    opened.verify()
    assert (opened.npu_file, opened.tokenizer_file, opened.cpu_file) == (None, None, tmp_path / "b" / "model.gguf")
    again = placed(tmp_path / "c", opened.manifest.dump())
    assert read_manifest(again) == opened.manifest


@pytest.mark.parametrize("kind", ["dangling link", "directory", "no file", "no directory", "a file"])
def test_places(kind: str, tmp_path: Path) -> None:
    bundle = placed(tmp_path / "b", GOOD)
    if kind == "no directory":
        bundle = tmp_path / "c"
    elif kind == "a file":
        bundle /= "bundle.yaml"
    else:
        (bundle / "model.gguf").unlink()
    if kind == "dangling link":
        (bundle / "model.gguf").symlink_to("nowhere")
    elif kind == "directory":
        (bundle / "model.gguf").mkdir()
    with pytest.raises(BundleError):
        Bundle.open(bundle)


def test_sha256_is_read_by_verify_only(tmp_path: Path) -> None:
    opened = Bundle.open(placed(tmp_path / "b", GOOD, weights=WEIGHTS[:-1] + b"!"))
    with pytest.raises(BundleError, match=r"model\.gguf: sha256 differs"):
        opened.verify()


words = st.sampled_from(["schema", SCHEMA, "model", "files", "{", "}", "[", "]", ": ", "- ", "\n", "  ", "&a ", "*a",
                         "!!int ", "!!set ", "? ", "| ", "> ", "'", '"', "<<: ", "#", "%YAML 9.9\n", "---\n", "0x_",
                         ".inf", "2001-99-01", "\t", "\x85", "\\ud800", "1:2"])  # fmt: skip
texts = st.lists(words | st.text(max_size=3), max_size=20).map("".join)


@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_any_text(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    refused(tmp_path_factory.getbasetemp() / "any-text", text.encode(errors="surrogatepass"))


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
trees = st.recursive(values, lambda t: st.lists(t, max_size=2) | st.dictionaries(values, t, max_size=2), max_leaves=3)


@given(key=st.sampled_from([k for k in GOOD if k not in {"quality", "chat"}]), tree=trees)
@settings(max_examples=100, deadline=None)
def test_any_tree_in_any_place(key: str, tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A bundle or a BundleError."""
    directory = placed(tmp_path_factory.getbasetemp() / "any-tree", {**GOOD, key: tree})
    try:
        Bundle.open(directory)
    except BundleError as error:
        assert len(str(error).splitlines()) == 1


def refused(directory: Path, manifest: bytes) -> None:
    with pytest.raises(BundleError):
        Bundle.open(placed(directory, manifest))


@pytest.mark.parametrize("name", ["python tag inside", "newer schema", "parent", "absolute", "empty", "wrong size"])
def test_inspect_says_it_in_one_line(name: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("inspect", placed(tmp_path / "b", BAD[name]), "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert [done.stderr.rstrip("\n")] == errors_of(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_inspect_of_each(name: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("inspect", placed(tmp_path / "b", BAD[name]))
    assert (done.returncode, done.stdout, len(errors_of(done.stderr))) == (3, "", 1)


def test_inspect_verify_finds_the_damage(tmp_path: Path, cli: Callable[..., Any]) -> None:
    bundle = placed(tmp_path / "b", GOOD, weights=WEIGHTS[:-1] + b"!")
    assert cli("inspect", bundle).returncode == 0
    done = cli("inspect", bundle, "--verify")
    assert (done.returncode, done.stdout) == (3, "")
    assert "model.gguf: sha256 differs" in errors_of(done.stderr)[0]


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_is_followed_inside_the_bundle_only(inside: bool, tmp_path: Path) -> None:
    directory = placed(tmp_path / "b", GOOD)
    (directory / "model.gguf").unlink()
    target = (directory if inside else tmp_path) / "weights"
    target.write_bytes(WEIGHTS)
    (directory / "model.gguf").symlink_to(target)
    if inside:
        assert Bundle.open(directory).cpu_file == directory / "model.gguf"
        return
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(directory)


def test_a_bundle_that_is_itself_a_link_is_none_that_leaves_itself(tmp_path: Path) -> None:
    directory = placed(tmp_path / "b", GOOD)
    (tmp_path / "link").symlink_to(directory)
    assert Bundle.open(tmp_path / "link").manifest.context == 4096
