"""What is fuzzed: each takes bytes and must come back, whatever they are."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fuzz.seeds import CUT, SMALL, TEXTS, files_of, small_weights
from rk_gemma.checkpoint import Checkpoint, read_spec
from rk_gemma.checkpoint.chattemplate import template_text
from rk_gemma.checkpoint.rebuild import rebuilt
from rk_gemma.checkpoint.tokens import added_tokens
from rk_gemma.pack.vocabulary import from_gguf, tokens_of
from rk_gemma.parts.card import read_card
from rk_gemma.parts.gguf import read_gguf
from rk_gemma.parts.ggufnames import read_gguf_name
from rk_gemma.parts.names import read_name
from rk_gemma_runtime.board.profile import _board
from rk_gemma_runtime.bundle import read_manifest
from rk_gemma_runtime.diagnosis import diagnose_stream
from rk_gemma_runtime.doctor.readings import read_readings
from rk_gemma_runtime.doctor.report import examine
from rk_gemma_runtime.doctor.root import Root
from rk_gemma_runtime.errors import BundleError, CheckpointError, InputError, RkGemmaError
from rk_gemma_runtime.memory.shape import from_config
from rk_gemma_runtime.rkllmfile.describe import describe
from rk_gemma_runtime.rkllmfile.source import BytesSource
from rk_gemma_runtime.rkllmfile.vocabulary import tokens
from rk_gemma_runtime.supervisor.lines import parse_line

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # files of an input live for a moment
NOWHERE = Path("/nonexistent")
# The files of a healthy board; the n-th part of an input stands for the n-th of them.
FILES = tuple(files_of("orangepi5-16gb"))


def explain(data: bytes) -> None:
    """Any bytes get a diagnosis that can be printed as JSON."""
    json.dumps(diagnose_stream(io.BytesIO(data)).tree())


def lines(data: bytes) -> None:
    """Any line of a library is a line."""
    line = parse_line(data.decode("utf-8", errors="replace"), 0.0)
    assert line.raw is not None


def doctor(data: bytes) -> None:
    """Any content of /proc and /sys gives findings."""
    parts = data.split(CUT)
    root = Root(NOWHERE, {name: part for name, part in zip(FILES, parts, strict=False) if part})
    examine(read_readings(root))


def profile(data: bytes) -> None:
    """A profile is a board or no profile."""
    with suppress(yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        tree = yaml.safe_load(data.decode("utf-8"))
        if isinstance(tree, dict):
            _board(tree)


def config(data: bytes) -> None:
    """A config.json is a shape or refused in one line."""
    with suppress(ValueError, RecursionError):
        tree: Any = json.loads(data)
        if isinstance(tree, dict):
            with suppress(RkGemmaError):
                from_config(tree, "fuzzed")


def spec(data: bytes) -> None:
    """A config.json and a generation_config.json are a model or refused in one line."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, suppress(CheckpointError):
        for name, part in zip(("config.json", "generation_config.json"), data.split(CUT), strict=False):
            (Path(folder) / name).write_bytes(part)
        read_spec(Path(folder))


def weights(data: bytes) -> None:
    """A safetensors file of any bytes is a checkpoint or refused."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, suppress(CheckpointError):
        (Path(folder) / "config.json").write_text(json.dumps(SMALL))
        (Path(folder) / "model.safetensors").write_bytes(data)
        Checkpoint.open(Path(folder))


def index(data: bytes) -> None:
    """An index is a set of weights, or passed over, or refused."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, suppress(CheckpointError):
        (Path(folder) / "config.json").write_text(json.dumps(SMALL))
        (Path(folder) / "model.safetensors.index.json").write_bytes(data)
        (Path(folder) / "model-00001-of-00001.safetensors").write_bytes(small_weights())
        Checkpoint.open(Path(folder))


def vocabulary(data: bytes) -> None:
    """The files about text are a tokenizer with added tokens and a template, or refused."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name, part in zip(TEXTS, data.split(CUT), strict=False):
            if part:
                (Path(folder) / name).write_bytes(part)
        for read in (added_tokens, template_text, lambda place: rebuilt(place / "tokenizer.json")):
            with suppress(CheckpointError):
                read(Path(folder))


def manifest(data: bytes) -> None:
    """A bundle.yaml is a manifest or refused in one line."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, suppress(BundleError):
        (Path(folder) / "bundle.yaml").write_bytes(data)
        json.dumps(read_manifest(Path(folder)).tree())


def rkllm(data: bytes) -> None:
    """Any bytes are described, and tokens of theirs are read or not."""
    source = BytesSource(data)
    found = describe(source)
    json.dumps(found.tree())
    read = tokens(source, found.keys) if found.keys is not None else None
    assert read is None or all(isinstance(token, bytes) for token in read)


def gguf(data: bytes) -> None:
    """Any bytes are a GGUF or refused in one line."""
    source = BytesSource(data)
    with suppress(InputError):
        facts = read_gguf(source)
        from_gguf(source, facts.keys, tokens_of(source, facts.keys, facts.vocab, "fuzzed"))


def card(data: bytes) -> None:
    """A card and a name say something or nothing."""
    text = data.decode("utf-8", "replace")
    read_card(text)
    read_name(text[:300])
    read_gguf_name(text[:300])


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (explain, doctor, lines, profile, config, spec, weights, index, vocabulary, manifest, rkllm, gguf, card)
}
