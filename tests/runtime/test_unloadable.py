"""Files that are no librkllmrt.so, and libraries that misbehave: each is a sentence, none ends this process."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
from typing import TYPE_CHECKING

import pytest
from librarykit import ELSEWHERE, HERE, compile_library, elf, source
from runtimekit import alive, patient, wait_until

from rk_gemma_runtime.errors import LibraryError, NpuReason
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.identify import identify
from rk_gemma_runtime.librkllm.library import NAME, find, load
from rk_gemma_runtime.librkllm.loader import explain
from rk_gemma_runtime.librkllm.releases import Release
from rk_gemma_runtime.librkllm.trial import try_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # the fast tests stay under half a minute

FUNCTIONS = tuple(LAYOUTS["1.3.0"].functions)
NOBODY = 65534


def refusal(path: Path, limit_s: float | None = None) -> LibraryError:
    """Why it cannot be used: as `find` says, or else as identifying it does."""
    with pytest.raises(LibraryError) as caught:
        found = identify(find(str(path)), limit_s=limit_s or patient(20))
        raise found.problem or AssertionError("it is usable")
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


# Files

CONTENTS = {
    "text": (b"no library", "not an ELF file"),
    "empty": (b"", "an empty file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n", "git-LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
    "oldpage": (b"<HTML>404</HTML>", "a web page"),
    "archive": (b"!<arch>\n" + bytes(60), "a static archive"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "a gzip archive"),
    "zip": (b"PK\x03\x04" + bytes(20), "a zip archive"),
    "stub": (b"\x7fELF", "a damaged ELF file"),
    "object": (elf(kind=1), "a relocatable object"),
    "program": (elf(kind=2), "a program"),
    "core": (elf(kind=4), "a core dump"),
    "cut": (elf(exports=FUNCTIONS, tail=bytes(500))[:-1], "cut off"),
    "headless": (elf()[:100], "cut off"),
    "elsewhere": (elf(ELSEWHERE, exports=FUNCTIONS), f"built for {ELSEWHERE}, this is {HERE}"),
    "armhf": (elf("armv7l", 32, exports=FUNCTIONS), "built for armv7l (32 bit)"),
    "strange": (elf(0xF3), "built for riscv64"),
    "android": (elf(exports=FUNCTIONS, needed=["liblog.so", "libm.so", "libc.so"]), "use the one for Linux"),
    "rknnrt": (elf(exports=["rknn_init", "rknn_run"]), "librknnrt.so"),
    "other": (elf(exports=["rkllm"]), "exports no rkllm_init"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_library_says_what_it_is(name: str, tmp_path: Path) -> None:
    content, words = CONTENTS[name]
    path = tmp_path / NAME
    path.write_bytes(content)
    error = refusal(path)
    assert words in str(error)
    assert error.reason is NpuReason.BAD_LIBRARY
    assert "\n" not in str(error)


def test_paths_that_lead_to_no_file_say_where_they_end(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere.so")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / NAME).write_bytes(b"")
    expected = {
        "absent": ("not there", NpuReason.NO_LIBRARY),
        "dangling": ("a link to nowhere.so, which is not there", NpuReason.NO_LIBRARY),
        "circle": ("symbolic links", NpuReason.BAD_LIBRARY),
        "fifo": ("not an ordinary file", NpuReason.BAD_LIBRARY),
        "empty": (f"a directory without {NAME}", NpuReason.BAD_LIBRARY),
        "full": (f"give the file inside it: {tmp_path / 'full' / NAME}", NpuReason.BAD_LIBRARY),
    }
    for name, (words, reason) in expected.items():
        error = refusal(tmp_path / name)
        assert words in str(error)
        assert error.reason is reason


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def test_no_permission(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / NAME
    path.write_bytes(elf(exports=FUNCTIONS))
    path.chmod(stat.S_IWUSR)
    request.getfixturevalue("as_nobody")
    assert "permission denied; make it readable" in str(refusal(path))


@pytest.mark.board
def test_a_truncated_library_is_told_from_a_whole_one(simulator: Callable[[str], Path], tmp_path: Path) -> None:
    data = simulator("1.3.0").read_bytes()
    path = tmp_path / NAME
    for length in (len(data) - 1, len(data) // 2, 5000, 100):
        path.write_bytes(data[:length])
        assert "cut off" in str(refusal(path))


def test_a_real_program_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.symlink_to(os.path.realpath(sys.executable))
    assert "a program, not a shared library" in str(refusal(path))


# What the loader refuses


def test_a_missing_dependency_is_named_with_what_to_install(tmp_path: Path) -> None:
    for name, words in (
        ("libgomp.so.1", "apt install libgomp1"),
        ("libomp.so", "Rockchip's archive"),
        ("libq.so", ""),
    ):
        part = compile_library(tmp_path / "part.so", "int part(void) { return 0; }", f"-Wl,-soname,{name}x")
        code = source("1.3.0", "1.3.0", more="int part(void); int more(void) { return part(); }")
        path = compile_library(tmp_path / NAME, code, str(part))
        error = refusal(path)
        assert f"needs {name}x, which is not here" in str(error)
        assert error.reason is NpuReason.MISSING_SHARED_LIBRARY
        told = explain(path, f"{name}: cannot open shared object file: No such file or directory")
        assert f"needs {name}, which is not here" in str(told)
        assert words in str(told)


def test_an_unmodified_release_is_tried_too(tmp_path: Path) -> None:
    """What its structs are is known; whether this system can load it is not."""
    part = compile_library(tmp_path / "part.so", "int part(void) { return 0; }", "-Wl,-soname,libomp.so")
    code = source("1.3.0", "1.3.0", more="int part(void); int more(void) { return part(); }")
    path = compile_library(tmp_path / NAME, code, str(part))
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found = identify(path, releases=(Release("1.3.0", blob),))
    assert (found.known_release, found.layout) == ("1.3.0", "1.3.0")
    assert found.problem is not None
    assert found.problem.reason is NpuReason.MISSING_SHARED_LIBRARY
    part.rename(tmp_path / "libomp.so")
    assert identify(path, releases=(Release("1.3.0", blob),)).problem is None


def test_a_dependency_beside_the_library_is_found(tmp_path: Path) -> None:
    part = compile_library(tmp_path / "libbeside.so", "int part(void) { return 7; }", "-Wl,-soname,libbeside.so")
    code = source("1.3.0", "1.3.0", more="int part(void); int more(void) { return part(); }")
    path = compile_library(tmp_path / NAME, code, str(part))
    assert load(path).cdll.more() == 7


def test_a_newer_glibc_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    script = tmp_path / "versions"
    script.write_text("GLIBC_2.2.5 { }; GLIBC_9.99 { future; };")
    libc = compile_library(
        tmp_path / "libfuture.so",
        "int future(void) { return 0; }",
        f"-Wl,--version-script={script}",
        "-Wl,-soname,libc.so.6",
    )
    code = source("1.3.0", "1.3.0", more="int future(void); int more(void) { return future(); }")
    path = compile_library(tmp_path / NAME, code, "-nostdlib", str(libc))
    with pytest.raises(LibraryError, match=r"needs glibc 9\.99, this system has 2\.") as caught:
        find(str(path))
    assert caught.value.reason is NpuReason.GLIBC_TOO_OLD
    trial = try_library(path)
    assert "needs glibc 9.99" in str(explain(path, trial.refused))


def test_an_undefined_symbol_is_named(tmp_path: Path) -> None:
    code = source("1.3.0", "1.3.0", more="int nowhere(void); int more(void) { return nowhere(); }")
    path = compile_library(tmp_path / NAME, code)
    assert "no library that it needs has nowhere" in str(refusal(path))


@pytest.mark.parametrize(
    ("message", "words", "reason"),
    [
        ("version `GLIBC_2.34' not found (required by x)", "glibc 2.34", NpuReason.GLIBC_TOO_OLD),
        ("version `GLIBCXX_3.4.32' not found (required by x)", "GLIBCXX_3.4.32", NpuReason.GLIBC_TOO_OLD),
        ("libstdc++.so.6: cannot open shared object file: No", "libstdc++6", NpuReason.MISSING_SHARED_LIBRARY),
        ("Error loading shared library libgomp.so.1: No", "libgomp1", NpuReason.MISSING_SHARED_LIBRARY),
        ("Error relocating /x.so: foo: symbol not found", "has foo", NpuReason.BAD_LIBRARY),
        ("file too short", "file too short", NpuReason.BAD_LIBRARY),
    ],
)
def test_the_loaders_words_become_a_cause(message: str, words: str, reason: NpuReason, tmp_path: Path) -> None:
    error = explain(tmp_path, message)
    assert words in str(error)
    assert error.reason is reason
    assert error.remedy


# Libraries that misbehave

BEGIN = "__attribute__((constructor)) static void begin(void) {{ {} }}"
CREATE = "P rkllm_createDefaultParam(void) {{ P p; {} return p; }}"
HEAD = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
MISCHIEF = {
    "segfaults on loading": (BEGIN, "*(volatile int *)0 = 1;", "loading it ended with SIGSEGV"),
    "exits on loading": (BEGIN, "exit(3);", "loading it ended the process (status 3)"),
    "exits well on loading": (BEGIN, "exit(0);", "loading it ended the process (status 0)"),
    "aborts on loading": (BEGIN, 'fputs("bad device\\n", stderr); abort();', "SIGABRT, after: bad device"),
    "closes everything": (BEGIN, "for (int i = 0; i < 64; i++) close(i); exit(1);", "loading it"),
    "segfaults when asked": (CREATE, "*(volatile int *)0 = 1;", "its rkllm_createDefaultParam ended with SIGSEGV"),
    "aborts when asked": (CREATE, "abort();", "its rkllm_createDefaultParam ended with SIGABRT"),
    "answers with nothing": (CREATE, "memset(&p, 0, sizeof p);", "stand where those of no known layout do"),
}


def mischief(folder: Path, template: str, body: str) -> Path:
    without = ["rkllm_createDefaultParam"] if template is CREATE else []
    return compile_library(folder / NAME, HEAD + source("1.3.0", "1.3.0", without, template.format(body)))


@pytest.mark.parametrize("what", MISCHIEF)
def test_what_a_library_does_while_it_is_tried_is_a_finding(what: str, tmp_path: Path) -> None:
    template, body, words = MISCHIEF[what]
    path = mischief(tmp_path, template, body)
    assert words in str(refusal(path))
    with pytest.raises(LibraryError):
        load(path)


@pytest.mark.slow
@pytest.mark.parametrize("template", [BEGIN, CREATE], ids=["loading", "asked"])
@pytest.mark.parametrize("body", ["sleep(1000);", "for (;;) puts(text);"], ids=["sleeps", "prints"])
def test_a_library_that_does_not_come_back_is_ended(template: str, body: str, tmp_path: Path) -> None:
    path = mischief(tmp_path, template, body)
    limit = patient(0.7)
    start = time.monotonic()
    message = str(refusal(path, limit))
    assert f"took longer than {limit:g} s" in message
    assert time.monotonic() - start < limit + patient(10)


def test_a_talkative_library_is_let_talk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = mischief(tmp_path, BEGIN, 'for (int i = 0; i < 10240; i++) printf("%1023d\\n", i); fflush(stdout);')
    assert identify(path, limit_s=patient(20)).problem is None
    assert capfd.readouterr() == ("", "")


def test_a_child_that_a_library_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    body = f"""if (fork() == 0) {{
            FILE *f = fopen("{note}.new", "w"); fprintf(f, "%d", getpid()); fclose(f);
            rename("{note}.new", "{note}"); sleep(1000);
        }}
        for (int i = 0; i < 500 && access("{note}", R_OK) != 0; i++) usleep(10000);"""
    assert identify(mischief(tmp_path, BEGIN, body), limit_s=patient(20)).layout == "1.3.0"
    wait_until(lambda: not alive(int(note.read_text())), "the child is gone")


def test_no_core_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mischief(tmp_path, BEGIN, "abort();")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "SIGABRT" in try_library(path).failure
    assert list((tmp_path / "empty").iterdir()) == []


def test_where_there_is_no_interpreter_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RK_GEMMA_PYTHON", str(tmp_path / "python"))
    assert "could not be tried" in try_library(tmp_path / NAME).failure
