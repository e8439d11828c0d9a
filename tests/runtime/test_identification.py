"""Which librkllmrt.so a file is: each sign alone, all together, and what happens when they disagree."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from librarykit import ELSEWHERE, SDK, changed, compile_library, default_param, elf, renamed, source
from runtimekit import ROOT, patient

from rk_gemma_runtime.errors import LibraryError, UnsupportedCall
from rk_gemma_runtime.librkllm import probe
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.content import CHUNK, read_content
from rk_gemma_runtime.librkllm.defaults import Image, fitting
from rk_gemma_runtime.librkllm.identify import Identity, identify
from rk_gemma_runtime.librkllm.library import LAYOUT_VARIABLE, load
from rk_gemma_runtime.librkllm.releases import RELEASES, Release
from rk_gemma_runtime.librkllm.rules import require_symbol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = tuple(LAYOUTS)
# What fits as well, once no text in the file says anything.
TWINS = {"1.2.0": "1.2.1b1", "1.2.1b1": "1.2.0", "1.3.0": "1.3.1", "1.3.1": "1.3.0"}
FILLS = probe.FILLS


def read(path: Path, releases: tuple[Release, ...] = ()) -> Identity:
    """Identified without being run."""
    return identify(path, releases=releases, limit_s=0)


def without_string(path: Path, target: Path, layout: str) -> Path:
    return changed(path, target, f"RKLLM SDK (version: {layout}".encode(), b"x" * (20 + len(layout)))


def without_literal(path: Path, target: Path, layout: str) -> Path:
    return changed(path, target, f"\0{layout}\0".encode(), b"\0" + b"x" * len(layout) + b"\0")


def signal(identity: Identity, name: str) -> tuple[str, ...]:
    return next(s.layouts for s in identity.signals if s.name == name)


@pytest.mark.board
@pytest.mark.parametrize("layout", NAMES)
def test_each_is_recognised_by_all_its_signs(layout: str, simulator: Callable[[str], Path]) -> None:
    found = identify(simulator(layout))
    assert (found.layout, found.version, found.problem, found.conflict) == (layout, layout, None, None)
    assert found.identified_by == ("string", "symbols", "defaults")
    assert (found.missing, found.forced, found.known_release) == ((), False, None)
    assert found.machine == platform.machine()
    assert found.second_hand == (layout == "1.3.1")
    assert all(layout in s.layouts for s in found.signals)


@pytest.mark.board
@pytest.mark.parametrize("layout", NAMES)
def test_without_the_string_the_other_signs_decide(
    layout: str, simulator: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = without_string(simulator(layout), tmp_path / "mute.so", layout)
    found = identify(path)
    assert (found.layout, found.problem) == (layout, None)
    assert "string" not in found.identified_by
    assert ("literal" in found.identified_by) == (layout in TWINS)
    with caplog.at_level(logging.WARNING):
        library = load(path)
    assert library.layout.name == layout
    assert "names no version" in caplog.text
    assert library.cdll.rkllm_createDefaultParam().top_k == 40


@pytest.mark.board
@pytest.mark.parametrize("layout", NAMES)
def test_without_any_text_it_is_right_or_refused(
    layout: str, simulator: Callable[[str], Path], tmp_path: Path
) -> None:
    path = without_string(simulator(layout), tmp_path / "mute.so", layout)
    path = without_literal(path, tmp_path / "blank.so", layout)
    found = identify(path)
    assert found.version is None
    if layout not in TWINS:
        assert (found.layout, found.problem) == (layout, None)
        assert load(path).version == layout
        return
    assert found.layout is None
    message = str(found.problem)
    for word in (layout, TWINS[layout], LAYOUT_VARIABLE):
        assert word in message
    assert load(path, layout).layout.name == layout


LIES = [(a, b) for a in NAMES for b in NAMES if a != b and len(a) >= len(b)]


@pytest.mark.board
@pytest.mark.parametrize(("layout", "claimed"), LIES)
def test_a_lying_string_is_found_out(
    layout: str, claimed: str, simulator: Callable[[str], Path], tmp_path: Path
) -> None:
    found = identify(renamed(simulator(layout), tmp_path / "liar.so", layout, claimed))
    assert found.layout is None
    assert found.conflict is not None
    assert f"its string says {claimed}, so {claimed}" in found.conflict
    assert layout in found.conflict
    assert str(found.problem).startswith(f"{found.path}: {found.conflict}")


@pytest.mark.board
def test_a_lie_within_a_layout_shows_as_the_version_only(simulator: Callable[[str], Path], tmp_path: Path) -> None:
    found = identify(renamed(simulator("1.2.1"), tmp_path / "later.so", "1.2.1", "1.2.3"))
    assert (found.layout, found.version, found.problem) == ("1.2.1", "1.2.3", None)


@pytest.mark.board
@pytest.mark.parametrize("version", ["1.4.0", "1.3.2", "2.0.0"])
def test_an_unknown_release_is_refused_with_what_it_looks_like(
    version: str, simulator: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = renamed(simulator("1.3.0"), tmp_path / "new.so", "1.3.0", version)
    with pytest.raises(LibraryError) as caught:
        load(path)
    message = str(caught.value)
    for words in (
        f"librkllmrt {version} is not known",
        "its default parameters have 184 bytes, as 1.3.0 or 1.3.1",
        f"{LAYOUT_VARIABLE}=1.3.1",
    ):
        assert words in message
    assert load(path, "1.3.0").identity.forced
    monkeypatch.setenv(LAYOUT_VARIABLE, "1.3.1")
    assert load(path).layout.name == "1.3.1"


@pytest.mark.board
def test_forcing_wins_and_says_over_what(simulator: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        library = load(simulator("1.3.0"), "1.2.3")  # by the name of a release, too
    assert library.layout.name == "1.2.1"
    assert library.identity.identified_by == ("forced",)
    for words in ("its string says 1.3.0", "184 bytes"):
        assert words in caplog.text


@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "0.9.7"])
def test_an_older_release_is_refused_with_its_reason(version: str, tmp_path: Path) -> None:
    path = tmp_path / "old.so"
    path.write_bytes(elf(exports=LAYOUTS["1.1.0"].functions, tail=SDK.format(version).encode()))
    with pytest.raises(LibraryError, match=rf"it is librkllmrt {version}; .* another API .* use 1\.1\.0 or later"):
        load(path)


@pytest.mark.parametrize("forced", [None, "1.1.0"])
@pytest.mark.parametrize("has_abort", [False, True])
def test_the_symbols_of_1_0_are_another_api(has_abort: bool, forced: str | None, tmp_path: Path) -> None:
    names = ["rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_destroy"]
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(elf(exports=[*names, "rkllm_abort"] if has_abort else names))
    with pytest.raises(LibraryError, match=r"another API .* no Gemma 2; use 1\.1\.0 or later"):
        load(path, forced)


def test_two_strings_are_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "two.so"
    texts = b"\0".join(SDK.format(v).encode() for v in ("1.2.1", "1.3.0"))
    path.write_bytes(elf(exports=LAYOUTS["1.3.0"].functions, tail=texts))
    found = read(path)
    assert found.layout is None
    assert found.version is None
    assert "2 version strings: 1.2.1, 1.3.0" in str(found.conflict)


def test_other_version_texts_are_traps(tmp_path: Path) -> None:
    path = tmp_path / "traps.so"
    traps = b"\0rknn llm lib version: 1.2.0 (x)\0librknnrt version: 1.1.0 (y)\0RKLLM version 1.2.0\0"
    path.write_bytes(elf(exports=LAYOUTS["1.3.0"].functions, tail=traps + SDK.format("1.3.0").encode()))
    found = read(path)
    assert (found.layout, found.version, found.conflict) == ("1.3.0", "1.3.0", None)


@pytest.mark.parametrize("shift", [0, 1, 12, 27, 40])
def test_a_text_across_two_reads_is_read_once(shift: int, tmp_path: Path) -> None:
    path = tmp_path / "split.so"
    texts = b"\0" + SDK.format("1.3.0").encode() + b"\0" + b"1.2.1b1\0"
    path.write_bytes(bytes(CHUNK - shift) + texts + bytes(100))
    with path.open("rb") as file:
        content = read_content(file, ())
    assert (content.versions, content.literals) == (("1.3.0",), ("1.2.1b1",))


def test_the_known_releases_are_the_ones_declared() -> None:
    versions = {r.version for r in RELEASES}
    assert {v for layout in LAYOUTS.values() for v in layout.releases} <= versions
    ids = [r.blob or r.sha256 for r in RELEASES]
    assert len(set(ids)) == len(ids)
    assert {len(r.blob) for r in RELEASES} == {40, 0}
    assert [r.version for r in RELEASES if r.second_hand] == ["1.3.1"]


def blob_of(path: Path) -> str:
    if shutil.which("git") is None:
        pytest.skip("no git to ask for the id; install git")
    return subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()


def test_a_known_file_needs_no_text(tmp_path: Path) -> None:
    path = tmp_path / "known.so"
    path.write_bytes(elf(exports=LAYOUTS["1.3.0"].functions, tail=bytes(3 << 20)))
    found = read(path, (Release("1.2.1", "0" * 40), Release("1.3.0", blob_of(path))))
    assert (found.layout, found.version, found.known_release) == ("1.3.0", "1.3.0", "1.3.0")
    assert found.identified_by == ("blob", "symbols")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    reported = Release("1.3.1", sha256=sha256, size=path.stat().st_size, second_hand=True)
    found = read(path, (reported,))
    assert (found.layout, found.known_release, found.second_hand) == ("1.3.1", "1.3.1", True)
    assert read(path, RELEASES).known_release is None


def test_a_known_file_that_says_otherwise_is_a_conflict(tmp_path: Path) -> None:
    path = tmp_path / "known.so"
    path.write_bytes(elf(exports=LAYOUTS["1.3.0"].functions, tail=SDK.format("1.3.0").encode()))
    found = read(path, (Release("1.2.0", blob_of(path)),))
    for words in ("unmodified release 1.2.0", "its string says 1.3.0"):
        assert words in str(found.conflict)


@pytest.mark.parametrize("layout", NAMES)
def test_symbols_narrow_it_to_a_generation(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "symbols.so"
    path.write_bytes(elf(exports=LAYOUTS[layout].functions))
    found = read(path)
    same = tuple(n for n, x in LAYOUTS.items() if x.functions.keys() == LAYOUTS[layout].functions.keys())
    assert signal(found, "symbols") == same


@pytest.mark.board
@pytest.mark.parametrize("layout", NAMES)
def test_another_machines_library_is_read_and_not_run(layout: str) -> None:
    path = ROOT / "build" / "simulator" / ELSEWHERE / layout / "librkllmrt.so"
    if not path.exists():
        pytest.skip(f"{path} is not built; run: make simulator-arm64")
    found = identify(path)
    assert (found.layout, found.version, found.machine) == (layout, layout, ELSEWHERE)
    assert found.identified_by == ("string", "symbols")
    assert f"built for {ELSEWHERE}, this is {platform.machine()}" in str(found.problem)


@pytest.mark.board
def test_a_file_without_section_headers_is_as_good(simulator: Callable[[str], Path], tmp_path: Path) -> None:
    data = bytearray(simulator("1.2.0").read_bytes())
    data[0x28:0x30] = bytes(8)
    data[0x3C:0x40] = bytes(4)
    path = tmp_path / "stripped.so"
    path.write_bytes(data)
    found = identify(path)
    assert (found.layout, found.problem, found.missing) == ("1.2.0", None, ())


def test_what_a_library_lacks_is_named_and_not_called(tmp_path: Path) -> None:
    lacks = "rkllm_set_function_tools"
    path = compile_library(tmp_path / "less.so", source("1.3.0", "1.3.0", without=[lacks]))
    library = load(path)
    assert library.identity.missing == (lacks,)
    assert lacks not in library.functions
    assert library.functions == LAYOUTS["1.3.0"].functions.keys() - {lacks}
    with pytest.raises(UnsupportedCall, match=lacks):
        require_symbol(library, lacks)


@pytest.mark.parametrize(
    "lacks", ["rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_abort", "rkllm_destroy"]
)
@pytest.mark.parametrize("forced", [None, "1.3.0"])
def test_what_is_needed_must_be_there(lacks: str, forced: str | None, tmp_path: Path) -> None:
    path = tmp_path / "less.so"
    path.write_bytes(elf(exports=[f for f in LAYOUTS["1.3.0"].functions if f != lacks]))
    with pytest.raises(LibraryError, match=f"does not export {lacks}|no rkllm_init"):
        load(path, forced)


def test_a_layout_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"unknown layout '9\.9'; choose .*1\.1\.0, 1\.2\.0"):
        identify(tmp_path, "9.9")


# What createDefaultParam wrote


def runs(data: bytes, size: int = 512) -> tuple[tuple[int, bytes], ...]:
    return tuple((fill, data + bytes([fill]) * (size - len(data))) for fill in FILLS)


def alike(layout: str) -> set[str]:
    """Layouts whose defaults cannot be told from this one's."""
    if layout in {"1.2.0", "1.2.1b1"}:
        return {"1.2.0", "1.2.1b1", "1.2.1"}  # n_batch 0 may be written as well
    return {layout, *([TWINS[layout]] if layout in TWINS else [])}


@pytest.mark.parametrize("layout", NAMES)
def test_defaults_tell_the_layout(layout: str) -> None:
    data = bytes(default_param(layout))
    image = Image.of(runs(data))
    assert image.extent == len(data)
    assert set(fitting(image)) == alike(layout)


@pytest.mark.parametrize("layout", NAMES)
def test_defaults_tell_it_also_where_the_end_is_not_written(layout: str) -> None:
    data = bytes(default_param(layout))
    last = -len(data.rstrip(b"\0")) // 4 * -4  # the end of the last field that is not zero
    found = set(fitting(Image.of(runs(data[:last]))))
    assert layout in found
    assert found <= alike(layout)


@pytest.mark.parametrize("layout", NAMES)
def test_defaults_tell_it_among_old_bytes(layout: str) -> None:
    for old in (0, 1, 0xFF):
        image = Image.of([(None, bytes(default_param(layout)).ljust(512, bytes([old])))])
        assert image.extent is None
        assert set(fitting(image)) == alike(layout)


@pytest.mark.parametrize("layout", NAMES)
def test_defaults_of_another_board_are_no_surprise(layout: str) -> None:
    param = default_param(layout)
    param.temperature = 0.7
    if hasattr(param.extend_param, "enabled_cpus_mask"):
        param.extend_param.enabled_cpus_mask = 0x0F
    assert set(fitting(Image.of(runs(bytes(param))))) == alike(layout)


@pytest.mark.parametrize("data", [b"", bytes(184), bytes(208), b"\xff" * 200, bytes(range(200)), bytes(300)])
def test_what_is_like_no_default_fits_nothing(data: bytes) -> None:
    assert fitting(Image.of(runs(data))) == ()


@pytest.mark.board
@pytest.mark.parametrize("layout", NAMES)
def test_by_value_says_the_same_as_by_address(layout: str, simulator: Callable[[str], Path]) -> None:
    function = ctypes.CDLL(str(simulator(layout))).rkllm_createDefaultParam
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    by_value, by_address = (Image.of(how(address)) for how in (probe.by_value, probe.by_address))
    assert fitting(by_value) == fitting(by_address)
    assert by_address.extent == ctypes.sizeof(LAYOUTS[layout].structs["RKLLMParam"])


@pytest.mark.board
def test_eight_megabytes_take_a_moment(simulator: Callable[[str], Path], tmp_path: Path) -> None:
    data = simulator("1.3.0").read_bytes()
    path = tmp_path / "large.so"
    path.write_bytes(data + (data * 8)[: (8 << 20) - len(data)].replace(b"RKLLM SDK", b"-" * 9))
    start = time.process_time()
    assert read(path).layout == "1.3.0"
    assert time.process_time() - start < patient(0.5)
