"""`rk-gemma export --lora-adapter`: names, files, manifest; interrupted and without room."""

from __future__ import annotations

import os
import resource
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hosttools import GEMMA2, errors_of, start, write_checkpoint
from lorakit import halves, module_names, write_peft

from rk_gemma.export.lora.sources import LoraSource
from rk_gemma.export.pipeline import Options, export
from rk_gemma_runtime.bundle import Adapter, Bundle

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # the fast tests stay under half a minute

NAMES = module_names(range(2))
LARGE = {**GEMMA2, "vocab_size": 2048, "hidden_size": 1024, "intermediate_size": 4096}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "src")


def peft(directory: Path, seed: int = 5) -> Path:
    return write_peft(directory, halves(GEMMA2, NAMES, seed=seed))


def test_two_adapters(source: Path, tmp_path: Path, main: Callable[..., Any]) -> None:
    first, second = peft(tmp_path / "My adapter (v2)"), peft(tmp_path / "other", seed=6)
    bundle = tmp_path / "b"
    done = main("export", source, "-o", bundle, "--lora-adapter", first, "--lora-adapter", f"pirate={second}")
    assert (done.code, done.stdout) == (0, "")
    files = [f"{name}.lora.{end}" for name in ("My-adapter-v2", "pirate") for end in ("sim", "gguf")]
    assert [line for line in done.stderr.splitlines() if line.endswith("writing")] == [
        f"{name}: writing" for name in [*files, "model.sim", "model.gguf"]
    ]
    assert {p.name for p in bundle.iterdir()} == {"bundle.yaml", "model.sim", "model.gguf", *files}
    opened = Bundle.open(bundle)
    opened.verify()
    assert opened.manifest.adapters == (
        Adapter("My-adapter-v2", *files[:2], "My adapter (v2)", 4), Adapter("pirate", *files[2:], "other", 4)
    )  # fmt: skip
    assert opened.manifest.files[files[0]] != opened.manifest.files[files[2]]


@pytest.mark.parametrize(("option", "npu", "cpu"), [("--npu", None, "x.lora.gguf"), ("--cpu", "x.lora.sim", None)])
def test_one_side_only(
    option: str, npu: str | None, cpu: str | None, source: Path, tmp_path: Path, main: Callable[..., Any]
) -> None:
    given = f"x={peft(tmp_path / 'p')}"
    assert main("export", source, "-o", tmp_path / "b", option, "none", "--lora-adapter", given).code == 0
    opened = Bundle.open(tmp_path / "b")
    assert opened.manifest.adapters == (Adapter("x", npu, cpu, "p", 4),)
    assert len(list((tmp_path / "b").iterdir())) == 3


def test_largest_rank(source: Path, tmp_path: Path) -> None:
    ranks = {name: 9 if "q_proj" in name else 2 for name in NAMES}
    directory = write_peft(tmp_path / "p", halves(GEMMA2, NAMES, ranks), r=2, rank_pattern={"q_proj": 9})
    bundle = export(source, tmp_path / "b", Options(cpu="none", adapters=(LoraSource("x", directory),)))
    assert bundle.adapter("x").rank == 9


@pytest.mark.parametrize(
    ("text", "name", "directory"),
    [("a", "a", "a"), ("x/a/", "a", "x/a"), ("n=a", "n", "a"), ("n=/x/a", "n", "/x/a"), ("n=a=b", "n", "a=b"),
     ("./a=b", "a-b", "a=b"), ("x/ .a b-", "a-b", "x/ .a b-"), ("x/..", None, "x/.."), ("=a", "", "a"),
     ("x/\u00e9t\u00e9 1", "t-1", "x/\u00e9t\u00e9 1")],
)  # fmt: skip
def test_how_a_value_is_read(text: str, name: str | None, directory: str) -> None:
    read = LoraSource.parse(text)
    assert str(read.directory) == directory
    assert read.name == (name if name is not None else os.path.basename(os.getcwd()))


def started(source: Path, target: Path, adapter: Path, **options: Any) -> subprocess.Popen[bytes]:
    return start("export", source, "-o", target, "--lora-adapter", adapter, **options)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    assert out == b""
    return process.returncode, err.decode()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and an adapter of 11 MB for it: writing the adapter takes a moment."""
    root = tmp_path_factory.mktemp("large")
    weights = halves(LARGE, NAMES, ranks=64)
    return write_checkpoint(root / "src", LARGE), write_peft(root / "style", weights, "BF16", r=64)


def stopped_at(process: subprocess.Popen[bytes], path: Path) -> None:
    """Until a file is there; then the process is stopped."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path.name} does not come"
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def test_killed_and_repeated(large: tuple[Path, Path], tmp_path: Path) -> None:
    """What is finished stays for the same adapter, and is written anew for another one."""
    source, adapter = large
    partial, target = tmp_path / ".b.partial", tmp_path / "b"
    process = started(source, target, adapter)
    stopped_at(process, partial / "style.lora.gguf")
    process.kill()
    ended(process)
    assert [p.name for p in tmp_path.iterdir()] == [".b.partial"]
    before = (partial / "style.lora.sim").stat()
    assert ended(started(source, target, adapter))[0] == 0
    after = (target / "style.lora.sim").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    Bundle.open(target).verify()


def test_another_adapter_in_its_place(large: tuple[Path, Path], tmp_path: Path) -> None:
    source, adapter = large
    partial, target, place = tmp_path / ".b.partial", tmp_path / "b", tmp_path / "style"
    place.symlink_to(adapter)
    process = started(source, target, place)
    stopped_at(process, partial / "model.sim")
    process.kill()
    ended(process)
    old = (partial / "style.lora.sim").read_bytes()
    place.unlink()
    write_peft(place, halves(LARGE, NAMES, ranks=64, seed=9), "BF16", r=64)
    assert ended(started(source, target, place))[0] == 0
    assert (target / "style.lora.sim").read_bytes() != old
    Bundle.open(target).verify()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(number: int, code: int, large: tuple[Path, Path], tmp_path: Path) -> None:
    process = started(large[0], tmp_path / "b", large[1])
    stopped_at(process, tmp_path / ".b.partial" / "style.lora.sim")
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    returned, err = ended(process)
    assert (returned, errors_of(err)) == (code, [])
    left = [p.name for place in tmp_path.iterdir() for p in place.iterdir()]
    assert set(left) in (set(), {"style.lora.sim", "export.json"})


@pytest.mark.parametrize("limit", [0, 20_000])
def test_no_room(limit: int, source: Path, tmp_path: Path) -> None:
    adapter = peft(tmp_path / "style")
    process = started(
        source, tmp_path / "b", adapter,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    code, err = ended(process)
    assert code == 3
    assert "File too large" in errors_of(err)[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src", "style"]


def test_manifest_in_words(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "b", Options(adapters=(LoraSource("x", peft(tmp_path / "p")),)))
    tree = yaml.safe_load((tmp_path / "b" / "bundle.yaml").read_text())
    assert tree["adapters"] == [
        {"name": "x", "npu": "x.lora.sim", "cpu": "x.lora.gguf", "source": "p", "rank": 4}
    ]  # fmt: skip
