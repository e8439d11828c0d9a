"""The ctypes declarations, field by field, against the measured tables of the vendor's headers."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.abi.layout import CallState, InferMode, InputType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.librkllm.abi import Layout

TABLES = Path(__file__).resolve().parents[2] / "board" / "simulator" / "abi"
SCALARS: dict[str, Any] = {
    "bool": ctypes.c_bool,
    "float": ctypes.c_float,
    "int": ctypes.c_int,
    "int8_t": ctypes.c_int8,
    "int32_t": ctypes.c_int32,
    "size_t": ctypes.c_size_t,
    "uint8_t": ctypes.c_uint8,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "void": None,
}
RECORDS = (ctypes.Structure, ctypes.Union)
PREFIXES = {CallState: "RKLLM_RUN_", InputType: "RKLLM_INPUT_", InferMode: "RKLLM_INFER_"}
# Our member, where it is not the vendor's name without its prefix.
RENAMED = {"GET_LAST_HIDDEN_LAYER": "LAST_HIDDEN_LAYER", "GET_LOGITS": "LOGITS"}


def table(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((TABLES / f"rkllm-{name}.json").read_text())
    return tree


@pytest.fixture(params=LAYOUTS)
def pair(request: pytest.FixtureRequest) -> tuple[Layout, dict[str, Any]]:
    """A layout and its measured table."""
    return LAYOUTS[request.param], table(request.param)


def flatten(kind: Any, base: int = 0, prefix: str = "") -> Iterator[tuple[str, int, int, Any]]:
    """(path, absolute offset, size, ctypes class) of every field, as the tables' `flat` has them."""
    unnamed = getattr(kind, "_anonymous_", ())
    for name, declared in kind._fields_:
        field = getattr(kind, name)
        offset = base + field.offset
        if name in unnamed:
            yield from flatten(declared, offset, prefix)
            continue
        yield prefix + name, offset, ctypes.sizeof(declared), declared
        if issubclass(declared, RECORDS):
            yield from flatten(declared, offset, f"{prefix}{name}.")


def expected_class(layout: Layout, tree: dict[str, Any], c_type: str) -> Any:
    """The ctypes class that a C type has to be declared as; None for void."""
    plain = c_type.replace("const ", "").strip()
    if plain in {"char *", "void *", "LLMHandle"}:
        return ctypes.c_char_p if plain == "char *" else ctypes.c_void_p
    if plain.endswith("*"):
        return ctypes.POINTER(expected_class(layout, tree, plain[:-1]))
    if plain.endswith("]"):
        element, length = plain[:-1].split("[")
        return SCALARS[element] * int(length)
    if plain in tree["enums"]:
        assert tree["enums"][plain]["underlying"] == "unsigned int"
        return ctypes.c_uint32
    return layout.structs[plain] if plain in layout.structs else SCALARS[plain]


def test_every_table_has_a_layout_and_every_layout_a_table() -> None:
    assert {p.stem.removeprefix("rkllm-") for p in TABLES.glob("*.json")} == set(LAYOUTS)


def test_the_releases_are_the_tables(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    assert set(layout.releases) == {r for r in tree["releases"] if "+" not in r}  # 1.1.4+docs is a header only
    assert all(layout.covers(release) for release in layout.releases)


def test_every_struct_is_declared_and_has_its_size(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    sizes = {name: (ctypes.sizeof(kind), ctypes.alignment(kind)) for name, kind in layout.structs.items()}
    assert sizes == {name: (s["size"], s["align"]) for name, s in tree["structs"].items()}
    assert all(s["kind"] == "struct" for s in tree["structs"].values())


def test_every_field_has_its_place(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    for name, kind in layout.structs.items():
        ours = {path: (offset, size) for path, offset, size, _ in flatten(kind)}
        assert ours == {path: (f["offset"], f["size"]) for path, f in tree["structs"][name]["flat"].items()}, name


def test_every_field_has_its_type(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    for name, kind in layout.structs.items():
        flat = tree["structs"][name]["flat"]
        for path, _, _, declared in flatten(kind):
            facts = flat[path]
            if facts["kind"] == "function-pointer":
                check_callback(layout, tree, facts["type"], declared)
            elif "unnamed" in facts["type"]:
                assert issubclass(declared, ctypes.Structure), (name, path)
            else:
                expected = expected_class(layout, tree, facts["type"])
                assert declared is expected, (name, path, declared, expected)


def check_callback(layout: Layout, tree: dict[str, Any], name: str, declared: Any) -> None:
    facts = tree["callbacks"][name]
    arguments = [expected_class(layout, tree, p["type"]) for p in facts["params"]]
    assert issubclass(declared, ctypes._CFuncPtr)
    assert list(declared._argtypes_) == arguments, name
    # An int where the header says void is harmless: the register is the caller's to lose.
    expected = SCALARS[facts["returns"]]
    assert declared._restype_ is (expected or ctypes.c_int), name


def test_the_result_callback_has_its_prototype(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    check_callback(layout, tree, "LLMResultCallback", layout.result_callback)


def test_every_function_is_declared(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    assert set(layout.functions) == set(tree["functions"])
    assert not set(layout.functions) & set(tree.get("functions_absent", ()))


def test_every_function_has_its_prototype(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    for symbol, (result, arguments) in layout.functions.items():
        facts = tree["functions"][symbol]
        assert result is expected_class(layout, tree, facts["returns"]), symbol
        types = [p["type"] for p in facts["params"]]
        assert len(arguments) == len(types), symbol
        for declared, c_type in zip(arguments, types, strict=True):
            if c_type in tree["callbacks"]:
                check_callback(layout, tree, c_type, declared)
            else:
                assert declared is expected_class(layout, tree, c_type), (symbol, c_type)


def test_enums_have_the_headers_values(pair: tuple[Layout, dict[str, Any]]) -> None:
    _, tree = pair
    for enum, prefix in PREFIXES.items():
        name = {CallState: "LLMCallState", InputType: "RKLLMInputType", InferMode: "RKLLMInferMode"}[enum]
        facts = tree["enums"][name]
        assert facts["size"] == ctypes.sizeof(ctypes.c_uint32)
        for constant, value in facts["constants"].items():
            member = constant.removeprefix(prefix)
            ours = member if member in enum.__members__ else RENAMED[member]
            assert enum[ours] == value, constant


def test_what_a_layout_says_it_can_do_is_in_its_header(pair: tuple[Layout, dict[str, Any]]) -> None:
    layout, tree = pair
    infer = tree["structs"]["RKLLMInferParam"]["flat"]
    third = tree["functions"]["rkllm_init"]["params"][2]["type"]
    clear = tree["functions"].get("rkllm_clear_kv_cache", {"params": []})
    assert layout.init_takes_struct == third.endswith("*")
    assert layout.has_logits == ("RKLLM_INFER_GET_LOGITS" in tree["enums"]["RKLLMInferMode"]["constants"])
    assert layout.has_perf == ("perf" in tree["structs"]["RKLLMResult"]["flat"])
    assert layout.sampling_per_run == ("sampling_params" in infer)
    assert layout.reuses_prefix == ("keep_history" in infer)
    assert layout.has_batch == ("extend_param.n_batch" in tree["structs"]["RKLLMParam"]["flat"])
    assert layout.can_pause == (tree["callbacks"]["LLMResultCallback"]["returns"] == "int")
    assert layout.clears_ranges == (len(clear["params"]) == 4)


def test_only_the_layout_that_was_not_measured_is_marked() -> None:
    assert [name for name, layout in LAYOUTS.items() if layout.second_hand] == ["1.3.1"]
    assert "WARNING" in table("1.3.1")


def test_the_tables_are_the_measured_facts() -> None:
    """Where the facts lie beside the checkout, the copies are held against them, byte for byte."""
    facts = TABLES.parents[3] / "shared" / "facts" / "abi"
    if not facts.is_dir():
        pytest.skip("the measured tables are not beside this checkout; nothing to compare the copies with")
    for name in LAYOUTS:
        original = facts / f"rkllm-{name}{'.secondhand' if name == '1.3.1' else ''}.json"
        assert (TABLES / f"rkllm-{name}.json").read_bytes() == original.read_bytes(), name
