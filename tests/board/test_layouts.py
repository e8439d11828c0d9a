"""The library is what the measured tables say: symbols, sizes, defaults, the version string."""

from __future__ import annotations

import ctypes as C
import platform
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from conftest import LAYOUTS, SIMULATOR, make
from simlib import Abi, Handle
from simwriter import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.board

DEFAULTS = {"max_context_len": 512, "max_new_tokens": -1, "top_k": 40, "mirostat": 0, "skip_special_token": True,
            "is_async": False}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exports(layout: str, abis: dict[str, Abi], built: Path) -> None:
    library = built / platform.machine() / layout / "librkllmrt.so"
    symbols = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True)
    assert {line.split()[2] for line in symbols.stdout.splitlines()} == set(abis[layout].table["functions"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_version_is_readable_without_loading(layout: str, built: Path) -> None:
    blob = (built / platform.machine() / layout / "librkllmrt.so").read_bytes()
    found = re.findall(rb"RKLLM SDK \(version: (\S+) \| target: Linux \| build: rk-gemma-simulator\)", blob)
    assert set(found) == {layout.encode()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ctypes_classes_have_the_tables_sizes(layout: str, abis: dict[str, Abi]) -> None:
    """The library's own structs are held to the same numbers by static_assert."""
    for name, struct in abis[layout].table["structs"].items():
        assert C.sizeof(abis[layout].struct(name)) == struct["size"]
        header = (SIMULATOR.parents[1] / "build" / "simulator" / "layout" / layout / "layout.hpp").read_text()
        assert f"static_assert(sizeof({name}) == {struct['size']}" in header


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the result's address is a plain argument on x86_64 only")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_defaults_stay_inside_the_struct(layout: str, abis: dict[str, Abi]) -> None:
    size = abis[layout].table["structs"]["RKLLMParam"]["size"]
    entry = abis[layout].lib["rkllm_createDefaultParam"]  # type: ignore[index]
    entry.argtypes, entry.restype = [C.c_void_p], C.c_void_p
    memory = (C.c_uint8 * (size + 256))(*[0xA5] * (size + 256))
    assert entry(C.addressof(memory)) == C.addressof(memory)
    assert bytes(memory[size:]) == b"\xa5" * 256
    assert bytes(memory[:8]) == bytes(8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_defaults(layout: str, abis: dict[str, Abi]) -> None:
    param = abis[layout].lib.rkllm_createDefaultParam()  # type: ignore[union-attr]
    for name, value in DEFAULTS.items():
        assert getattr(param, name) == value
    assert (param.temperature, param.top_p, param.repeat_penalty) == pytest.approx((0.8, 0.9, 1.1))
    extend = param.extend_param
    assert extend.base_domain_id == 0
    if layout != "1.1.0":
        assert (extend.embed_flash, param.n_keep) == (1, -1)
        assert (extend.enabled_cpus_num, extend.enabled_cpus_mask) == (4, 0xF0)
    assert getattr(extend, "n_batch", 1) == 1


def test_null_arguments(abi: Abi, tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lib = abi.lib
    assert lib is not None
    handle, infer, request = C.c_void_p(), abi.struct("RKLLMInferParam")(), abi.struct("RKLLMInput")(input_type=1)
    assert lib.rkllm_init(C.byref(handle), None, None) == -1
    assert lib.rkllm_destroy(None) == -1 and lib.rkllm_abort(None) == -1 and lib.rkllm_is_running(None) == -1
    with Handle(abi, tiny) as h:
        assert lib.rkllm_run(h.handle, None, C.byref(infer), None) == -1
        assert lib.rkllm_run(h.handle, C.byref(request), None, None) == -1
        for kind in (0, 1, 2, 3, 9):
            request.input_type = kind
            assert lib.rkllm_run(h.handle, C.byref(request), C.byref(infer), None) == -1
        for name in ("load_lora", "load_prompt_cache", "set_cross_attn_params", "get_kv_cache_size"):
            assert h.call(name, None) == -1
        assert h.load_lora(None, "x") == -1 and h.load_lora("/x", None) == -1
        assert h.call("set_chat_template", None, None, None) == 0
    err = capfd.readouterr().err
    assert "E rkllm: RKLLMParam pointer is NULL" in err and "E rkllm: LLMHandle is NULL" in err
    assert "E rkllm: rkllm_input is NULL" in err and "E rkllm: rkllm_infer_params is NULL" in err


@pytest.mark.parametrize(("fields", "line"), [
    ({"enabled_cpus_num": 3}, "Mismatch between enabled CPUs mask and expected count"),
    ({"enabled_cpus_num": 0}, "Expected The number of enabled CPUs between 1 and 8 for RK3588, but got 0."),
    ({"enabled_cpus_num": 1, "enabled_cpus_mask": 16}, "greater than or equal to the number of NPU cores"),
    ({"base_domain_id": -1}, "base_domain_id must >= 0, but current base_domain_id is -1"),
    ({"n_batch": 0}, "E rkllm: n_batch must be between 1 and 8, but got 0"),
    ({"n_batch": 9}, "E rkllm: n_batch must be between 1 and 8, but got 9"),
])  # fmt: skip
def test_extended_parameters(
    fields: dict[str, int], line: str, abi: Abi, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert Handle(abi, tiny, extend=fields).returned == -1
    assert line in capfd.readouterr().err


def test_the_table_of_another_release_is_enough(tmp_path: Path) -> None:
    """generate_layout.py makes a header that compiles from each table it is given."""
    for layout in LAYOUTS:
        table = SIMULATOR / "abi" / f"rkllm-{layout}.json"
        subprocess.run(["python3", str(SIMULATOR / "generate_layout.py"), str(table), str(tmp_path)], check=True)
        (tmp_path / "t.cpp").write_text('#include "layout.hpp"\n')
        for compiler in ("g++", "aarch64-linux-gnu-g++"):
            if shutil.which(compiler):
                command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "t.cpp"]
                subprocess.run(command, cwd=tmp_path, check=True)


def test_selftest_and_damaged_files_under_the_sanitizers(
    built: Path, tmp_path: Path, checkpoints: dict[str, Checkpoint]
) -> None:
    base = checkpoints["tiny-gemma2"]
    pieces = [bytes([65 + i % 26]) * (i % 4) for i in range(512)]
    path = write_checkpoint(tmp_path / "m.sim", Checkpoint(base.keys, base.weights, pieces), "w8a8")
    make("sanitize")
    done = subprocess.run([str(built / "sanitize" / "selftest"), str(path), str(tmp_path / "damaged.sim")],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "selftest: 0 failures" in done.stdout
    for line in ("invalid rkllm model!", "failed to read tensor info", "failed to read the tensor data",
                 "failed to load lora adapter file from", "failed to load prompt cache from"):  # fmt: skip
        assert f"E rkllm: {line}" in done.stderr
