"""Adapters in bundle.yaml: what opens, what is refused, and what is said of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import errors_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rk_gemma_runtime import plainyaml
from rk_gemma_runtime.bundle import SCHEMA, Adapter, Bundle, read_manifest
from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FACTS = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
FILES = ("model.gguf", "one.lora.sim", "one.lora.gguf", "two.lora.gguf")
ONE = {"name": "one", "npu": "one.lora.sim", "cpu": "one.lora.gguf", "source": "peft", "rank": 8}
TWO = {"name": "two", "npu": None, "cpu": "two.lora.gguf", "source": "", "rank": 1}


def placed(directory: Path, adapters: Any) -> Path:
    tree = {
        "schema": SCHEMA, "model": {"family": "gemma2", "size": "2b"}, "chat": {"template": "none"}, "context": 4096,
        "vocab": 256000, "bos": 2, "eos": [1], "npu": None, "cpu": {"file": "model.gguf", "quant": "Q8_0"},
        "tokenizer": None, "adapters": adapters, "quality": {}, "files": {name: FACTS for name in FILES},
    }  # fmt: skip
    directory.mkdir(exist_ok=True)
    for name in FILES:
        (directory / name).write_bytes(b"x")
    (directory / "bundle.yaml").write_text(plainyaml.dump(tree))
    return directory


def test_adapters_by_name(tmp_path: Path) -> None:
    opened = Bundle.open(placed(tmp_path / "b", [ONE, TWO]))
    opened.verify()
    one = Adapter("one", "one.lora.sim", "one.lora.gguf", "peft", 8)
    assert opened.manifest.adapters == (one, Adapter("two", None, "two.lora.gguf", "", 1))
    assert (opened.adapter("one"), opened.adapter("two").files) == (one, ("two.lora.gguf",))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "bundle.yaml").write_text(opened.manifest.dump())
    assert read_manifest(tmp_path / "c") == opened.manifest


@pytest.mark.parametrize(
    ("adapters", "says"),
    [([ONE, TWO], "no adapter three in this bundle; it has one, two"),
     ([], "no adapter three in this bundle; it has none; export it with --lora-adapter")],
)  # fmt: skip
def test_adapter_that_is_not_there(adapters: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=says):
        Bundle.open(placed(tmp_path / "b", adapters)).adapter("three")


@pytest.mark.parametrize("adapters", [[], None])
def test_bundles_without_any(adapters: Any, tmp_path: Path) -> None:
    assert Bundle.open(placed(tmp_path / "b", adapters)).manifest.adapters == ()


BAD: dict[str, Any] = {
    "names only": ["one.lora.sim"],
    "a mapping": {"one": ONE},
    "text": "one",
    "a number in the list": [3],
    "twice": [ONE, ONE],
    "without rank": [{k: v for k, v in ONE.items() if k != "rank"}],
    "without name": [{k: v for k, v in ONE.items() if k != "name"}],
    "without npu": [{k: v for k, v in ONE.items() if k != "npu"}],
    "with another key": [{**ONE, "colour": "red"}],
    "without a file": [{**ONE, "npu": None, "cpu": None}],
    "rank -1": [{**ONE, "rank": -1}],
    "rank in words": [{**ONE, "rank": "eight"}],
    "name is a number": [{**ONE, "name": 1}],
    "name is a list": [{**ONE, "name": ["one"]}],
    "name is empty": [{**ONE, "name": ""}],
    "name has a folder": [{**ONE, "name": "a/one"}],
    "name with escape": [{**ONE, "name": "a\x1b[31mb"}],
    "source is a number": [{**ONE, "source": 3}],
    "file not under files": [{**ONE, "npu": "three.lora.sim"}],
    "file outside": [{**ONE, "npu": "../one.lora.sim"}],
    "file is a number": [{**ONE, "cpu": 5}],
    "file is a list": [{**ONE, "cpu": ["one.lora.gguf"]}],
    "file is the manifest": [{**ONE, "cpu": "bundle.yaml"}],
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(placed(tmp_path / "b", BAD[name]))
    assert str(caught.value).isprintable()
    assert "bundle.yaml: " in str(caught.value)


def test_file_that_is_missing(tmp_path: Path) -> None:
    bundle = placed(tmp_path / "b", [ONE])
    (bundle / "one.lora.sim").unlink()
    with pytest.raises(BundleError, match=r"one\.lora\.sim: named in bundle\.yaml and not there"):
        Bundle.open(bundle)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(FILES)
entries = st.fixed_dictionaries({}, optional={key: values | st.just(ONE[key]) for key in ONE})


@given(adapters=st.lists(entries | values, max_size=3) | values)
@settings(max_examples=200, deadline=None)
def test_any_adapters(adapters: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Adapters whose files are all there, or a BundleError."""
    try:
        opened = Bundle.open(placed(tmp_path_factory.getbasetemp() / "any-adapters", adapters))
    except BundleError as error:
        assert str(error).isprintable()
    else:
        for adapter in opened.manifest.adapters:
            assert opened.adapter(adapter.name) is adapter
            assert set(adapter.files) <= set(FILES)


def test_inspect_shows_them(tmp_path: Path, main: Callable[..., Any]) -> None:
    shown = main("inspect", placed(tmp_path / "b", [ONE, TWO]))
    assert shown.code == 0
    assert "adapters   one (rank 8, npu and cpu), two (rank 1, cpu)" in shown.stdout.splitlines()
    assert "adapters   none" in main("inspect", placed(tmp_path / "b", [])).stdout.splitlines()
    tree = json.loads(main("inspect", placed(tmp_path / "b", [ONE, TWO]), "--json").stdout)
    assert tree["adapters"] == [ONE, TWO]
    done = main("inspect", placed(tmp_path / "b", ["one.lora.sim"]))
    assert (done.code, len(errors_of(done.stderr))) == (3, 1)
