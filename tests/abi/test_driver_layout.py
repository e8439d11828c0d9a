"""The driver room's numbers and structs against the measured tables of the rknpu driver's headers."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from rk_gemma_runtime.board.facts import DOMAINS
from rk_gemma_runtime.driver import ioctl
from rk_gemma_runtime.driver.probe import CONTIGUOUS, LIKE_THE_LIBRARY, PLAIN

TABLES = Path(__file__).resolve().parents[1] / "data" / "abi"
VERSIONS = ("0.9.6", "0.9.8")
TYPES = {"__u32": ctypes.c_uint32, "__s32": ctypes.c_int32, "__u64": ctypes.c_uint64}
STRUCTS = {"rknpu_action": ioctl.Action, "rknpu_mem_create": ioctl.MemCreate, "rknpu_mem_destroy": ioctl.MemDestroy}
COMMANDS = {"ACTION": (ioctl.ACTION, ioctl.Action), "MEM_CREATE": (ioctl.MEM_CREATE, ioctl.MemCreate),
            "MEM_DESTROY": (ioctl.MEM_DESTROY, ioctl.MemDestroy)}  # fmt: skip


@pytest.fixture(params=VERSIONS)
def table(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The table of a driver version."""
    tree: dict[str, Any] = json.loads((TABLES / f"rknpu-ioctl-{request.param}.json").read_text())
    return tree


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_has_its_place_and_type(table: dict[str, Any], name: str) -> None:
    facts, kind = table["structs"][name], STRUCTS[name]
    assert (ctypes.sizeof(kind), ctypes.alignment(kind)) == (facts["size"], facts["align"])
    ours = [(getattr(kind, field).offset, declared) for field, declared in kind._fields_]
    assert ours == [(f["offset"], TYPES[f["type"]]) for f in facts["fields"]]


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_has_its_name(table: dict[str, Any], name: str) -> None:
    known = {"core_mask": "reserved"} if table["driver"] == "0.9.6" else {}
    ours = [known.get(field, field) for field, _ in STRUCTS[name]._fields_]
    assert ours == [f["name"] for f in table["structs"][name]["fields"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_number_on_both_kinds_of_node(table: dict[str, Any], name: str) -> None:
    number, kind = COMMANDS[name]
    size = ctypes.sizeof(kind)
    assert ioctl.command(number, size, drm=True) == table["ioctls"][f"DRM_IOCTL_RKNPU_{name}"]["number"]
    assert ioctl.command(number, size, drm=False) == table["ioctls"][f"IOCTL_RKNPU_{name}"]["number"]


def test_actions_have_the_headers_values(table: dict[str, Any]) -> None:
    values = table["enums"]["e_rknpu_action"]
    assert {code.name: code.value for code in ioctl.ActionCode} == {
        code.name: values[f"RKNPU_{code.name}"] for code in ioctl.ActionCode
    }


def test_memory_flags_have_the_headers_values(table: dict[str, Any]) -> None:
    values = table["enums"]["e_rknpu_mem_type"]
    newest = {"IOMMU_LIMIT_IOVA_ALIGNMENT"} if table["driver"] == "0.9.6" else set()
    for flag in ioctl.MemFlag:
        assert (flag.name in newest) == (f"RKNPU_MEM_{flag.name}" not in values)
        assert values.get(f"RKNPU_MEM_{flag.name}", 1024) == flag.value


def test_the_probe_asks_as_the_library_does(table: dict[str, Any]) -> None:
    assert LIKE_THE_LIBRARY == 0x403
    assert PLAIN == 0x3 and CONTIGUOUS == 0x2
    assert PLAIN & ~table["enums"]["e_rknpu_mem_type"]["RKNPU_MEM_MASK"] == 0


def test_the_version_code_is_read_as_it_is_made(table: dict[str, Any]) -> None:
    from rk_gemma_runtime.doctor.readers.npu import _from_code

    code = table["kernel_constants"]["drv_version_code (RKNPU_GET_DRV_VERSION)"]
    assert _from_code(code) == table["driver"]
    assert table["kernel_constants"]["RKNPU_MAX_IOMMU_DOMAIN_NUM"] == DOMAINS


def test_the_version_of_any_drm_driver() -> None:
    """The kernel's DRM core, not rknpu's header: 64 bytes and 0xc0406400 on 64-bit systems."""
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        assert ctypes.sizeof(ioctl.DrmVersion) == 64
        assert ioctl.DRM_IOCTL_VERSION == 0xC0406400


def test_the_tables_are_the_measured_facts() -> None:
    """Where the facts lie beside the checkout, the copies are held against them, byte for byte."""
    facts = TABLES.parents[3] / "shared" / "facts" / "abi"
    if not facts.is_dir():
        pytest.skip("the measured tables are not beside this checkout; nothing to compare the copies with")
    for version in VERSIONS:
        name = f"rknpu-ioctl-{version}.json"
        assert (TABLES / name).read_bytes() == (facts / name).read_bytes(), name
