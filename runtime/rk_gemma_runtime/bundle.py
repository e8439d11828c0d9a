"""The bundle: the deployed directory, its manifest, and what may stand in it (docs/bundle.md).

Reading never executes and never leaves the directory: YAML's safe subset, plain file names only.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from rk_gemma_runtime import plainyaml
from rk_gemma_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = "rk-gemma-bundle/1"
MANIFEST = "bundle.yaml"
GIVE = "give the directory that `rk-gemma export` wrote"
MANIFEST_LIMIT = 1 << 20
TEMPLATES = ("gemma", "none")
NUMBERS = ("max_context", "npu_cores")
SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")  # llama.cpp opens the first part and finds the others by name
MOST_SIZE, MOST_LAYERS = 1 << 20, 1024
SHAPE = ("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn")
T = TypeVar("T")
# PyYAML's constructors let Python's own errors through for scalars such as 2024-13-45 or !!int ''.
YAML_FAULTS = (
    yaml.YAMLError, ValueError, KeyError, AttributeError, IndexError, TypeError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """Which model this is."""

    family: str
    size: str
    variant: str = ""
    source: str = ""
    revision: str = ""
    licence: str = ""


@dataclass(frozen=True)
class NpuPart:
    """Weights for the NPU. `format` is rkllm (Rockchip's toolkit wrote it) or sim (for the simulator); `toolkit` is
    its version, empty if not known; `options` says in words how it was converted, empty if not known."""

    file: str
    format: str
    dtype: str
    platform: str
    toolkit: str
    max_context: int
    npu_cores: int
    options: str = ""

    @property
    def library(self) -> str:
        """The library that it needs, in words; empty for the simulator and where the toolkit is not known."""
        return f"librkllmrt >= {self.toolkit}" if self.format == "rkllm" and self.toolkit else ""


@dataclass(frozen=True)
class CpuPart:
    """GGUF weights for llama.cpp; of a split file the first part."""

    file: str
    quant: str


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, as a file for each backend that has one. `rank` is the largest of its pairs, 0 if it is not
    known."""

    name: str
    npu: str | None
    cpu: str | None
    source: str
    rank: int

    @property
    def files(self) -> tuple[str, ...]:
        """Names of its files."""
        return tuple(name for name in (self.npu, self.cpu) if name is not None)


@dataclass(frozen=True)
class FileFacts:
    """What a file must be: sha256 in hex, and its length."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """bundle.yaml. `eos` are the ids that end an answer; `template` is gemma, or none (texts are continued); `shape`
    has the keys of SHAPE, or none where it was written before they were."""

    model: ModelFacts
    context: int
    vocab: int
    bos: int
    eos: tuple[int, ...]
    template: str
    npu: NpuPart | None = None
    cpu: CpuPart | None = None
    tokenizer: str | None = None
    adapters: tuple[Adapter, ...] = ()
    shape: dict[str, int] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileFacts] = field(default_factory=dict)

    @property
    def cpu_bytes(self) -> int:
        """Length of the CPU weights, all parts of a split file together; 0 if there are none."""
        if self.cpu is None:
            return 0
        shared = SHARD.sub("", self.cpu.file) if SHARD.search(self.cpu.file) else ""
        parts = [name for name in self.files if shared and SHARD.search(name) and SHARD.sub("", name) == shared]
        return sum(self.files[name].bytes for name in parts or [self.cpu.file])

    def tree(self) -> dict[str, Any]:
        """Return the manifest as plain data, keys in the order of docs/bundle.md."""
        return {
            "schema": SCHEMA,
            "model": asdict(self.model),
            "chat": {"template": self.template},
            "context": self.context,
            "vocab": self.vocab,
            "bos": self.bos,
            "eos": list(self.eos),
            "shape": self.shape,
            "npu": asdict(self.npu) if self.npu else None,
            "cpu": asdict(self.cpu) if self.cpu else None,
            "tokenizer": {"file": self.tokenizer} if self.tokenizer else None,
            "adapters": [asdict(adapter) for adapter in self.adapters],
            "quality": self.quality,
            "files": {name: asdict(facts) for name, facts in sorted(self.files.items())},
        }

    def dump(self) -> str:
        """Return the manifest as YAML."""
        return plainyaml.dump(self.tree())


class Bundle:
    """An opened bundle: a directory whose manifest has been checked and whose files have the right sizes."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """`directory` is kept as it is for messages. Files are found from where it lies now, whatever directory the
        program changes to."""
        self.directory = directory
        self.manifest = manifest
        self._place = directory.absolute()

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Read and check the manifest and the size of every file. Raises BundleError."""
        root = Path(directory)
        manifest = read_manifest(root)
        bundle = cls(root, manifest)
        for name, facts in manifest.files.items():
            bundle._check_size(name, facts)
        return bundle

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.resolve().name

    def path(self, name: str) -> Path:
        """Return where a file of the manifest lies: an absolute path."""
        return self._place / name

    @property
    def npu_file(self) -> Path | None:
        """NPU weights, if the bundle has them."""
        return self.path(self.manifest.npu.file) if self.manifest.npu else None

    @property
    def cpu_file(self) -> Path | None:
        """GGUF weights, if the bundle has them."""
        return self.path(self.manifest.cpu.file) if self.manifest.cpu else None

    @property
    def tokenizer_file(self) -> Path | None:
        """The SentencePiece model; None for an ids-only bundle."""
        return self.path(self.manifest.tokenizer) if self.manifest.tokenizer else None

    def adapter(self, name: str) -> Adapter:
        """Find the adapter of this name. Raises BundleError, which names those there are."""
        for adapter in self.manifest.adapters:
            if adapter.name == name:
                return adapter
        there = ", ".join(adapter.name for adapter in self.manifest.adapters)
        advice = f"it has {there}" if there else "it has none; export it with --lora-adapter"
        raise BundleError(f"{self.directory}: no adapter {name} in this bundle; {advice}")

    def verify(self, on_file: Callable[[str], None] = lambda name: None) -> None:
        """Hold every file's sha256 against the manifest. Reads everything. Raises BundleError."""
        for name, facts in self.manifest.files.items():
            on_file(name)
            if sha256_of(self.path(name)) != facts.sha256:
                raise BundleError(f"{self.path(name)}: sha256 differs from the manifest; export or copy it again")

    def _check_size(self, name: str, facts: FileFacts) -> None:
        path = self.path(name)
        if path.is_symlink() and not path.exists():
            raise BundleError(f"{path}: a broken link")
        if path.is_symlink() and not path.resolve().is_relative_to(self._place.resolve()):
            raise BundleError(f"{path}: a link that leaves the bundle; copy the file itself")
        if not path.is_file():
            raise BundleError(f"{path}: named in {MANIFEST} and not there; copy the whole bundle")
        size = path.stat().st_size
        if size != facts.bytes:
            raise BundleError(f"{path}: {size} bytes, the manifest says {facts.bytes}; copy it again")


def sha256_of(path: Path) -> str:
    """Hash a file in blocks: sha256 in hex."""
    import hashlib  # and with it OpenSSL, a megabyte that an answer has no use for

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(root: Path) -> Manifest:
    """Parse DIRECTORY/bundle.yaml. Raises BundleError with one line that names the file and the fault."""
    path = root / MANIFEST
    tree = _load(root, path)
    schema = tree.get("schema")
    if schema != SCHEMA:
        raise BundleError(f"{path}: schema {schema!r} is not {SCHEMA}; {_schema_advice(schema)}")
    try:
        manifest = _manifest(tree)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path}: {_fault(error)}") from error
    _check_names(path, manifest)
    return manifest


def _schema_advice(schema: object) -> str:
    newer = isinstance(schema, str) and schema.startswith("rk-gemma-bundle/")
    return "update rk-gemma to read it" if newer else "not an rk-gemma bundle"


def _fault(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else f"not a bundle manifest: {error}"


def _no_directory(root: Path) -> str:
    if not root.exists():
        return f"no such directory; {GIVE}"
    inside = (root.parent / MANIFEST).exists()
    return f"a file, not a bundle directory; {f'give {root.parent}' if inside else GIVE}"


def _load(root: Path, path: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise BundleError(f"{root}: {_no_directory(root)}")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: not a regular file")
        if status.st_size > MANIFEST_LIMIT:
            raise BundleError(f"{path}: larger than {MANIFEST_LIMIT} bytes; not a manifest")
        tree = plainyaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        is_source = (root / "config.json").exists()
        advice = f"export it first: rk-gemma export {root} -o DIR" if is_source else GIVE
        raise BundleError(f"{root}: no {MANIFEST} here, so not a bundle; {advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    except YAML_FAULTS as error:
        raise BundleError(f"{path}: not plain YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{path}: not a mapping")
    return tree


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _manifest(tree: dict[str, Any]) -> Manifest:
    tokenizer = tree.get("tokenizer")
    return Manifest(
        model=ModelFacts(**tree["model"]),
        context=_positive(tree, "context"),
        vocab=_positive(tree, "vocab"),
        bos=int(tree["bos"]),
        eos=_ids(tree, "eos"),
        template=_template(tree),
        shape=_shape(tree.get("shape") or {}),
        npu=_part(NpuPart, _npu(tree.get("npu"))),
        cpu=_part(CpuPart, tree.get("cpu")),
        tokenizer=str(tokenizer["file"]) if tokenizer else None,
        adapters=_adapters(tree.get("adapters") or []),
        quality=_plain(tree.get("quality") or {}),
        files={str(k): FileFacts(str(v["sha256"]), int(v["bytes"])) for k, v in tree["files"].items()},
    )


def _template(tree: dict[str, Any]) -> str:
    template = tree["chat"]["template"]
    if template not in TEMPLATES:
        raise ValueError(f"unknown chat.template {str(template)[:40]!r}; choose {' or '.join(TEMPLATES)}")
    return str(template)


def _adapters(found: object) -> tuple[Adapter, ...]:
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise TypeError("adapters is not a list of mappings")
    adapters = tuple(Adapter(**{**entry, "rank": _rank(entry)}) for entry in found)
    if not all(adapter.files and isinstance(adapter.source, str) for adapter in adapters):
        raise ValueError("an adapter has no file, or its source is not text")
    if len({adapter.name for adapter in adapters}) != len(adapters):
        raise ValueError("two adapters have one name")
    return adapters


def _rank(entry: dict[str, Any]) -> int:
    return int(entry["rank"]) and _positive(entry, "rank")


def _shape(tree: dict[str, Any]) -> dict[str, int]:
    """Read all of SHAPE, or nothing."""
    shape = {key: _positive(tree, key) for key in SHAPE} if tree else {}
    if shape and (max(shape.values()) > MOST_SIZE or shape["layers"] > MOST_LAYERS):
        raise ValueError("shape has sizes that no model has")
    return shape


def _positive(tree: dict[str, Any], key: str) -> int:
    value = int(tree[key])
    if value <= 0:
        raise ValueError(f"{key} is {value}")
    return value


def _ids(tree: dict[str, Any], key: str) -> tuple[int, ...]:
    found = tuple(int(i) for i in tree[key])
    if not found:
        raise ValueError(f"{key} is empty")
    return found


def _plain(tree: Any) -> dict[str, Any]:
    """Copy through JSON: YAML's anchors can make a tree that contains itself, or one that explodes."""
    text = json.dumps(tree)
    if len(text) > MANIFEST_LIMIT:
        raise ValueError("quality is too large")
    return dict(json.loads(text))


def _npu(tree: dict[str, Any] | None) -> dict[str, Any] | None:
    if not tree:
        return None
    return {**tree, "max_context": _positive(tree, "max_context"), "npu_cores": _positive(tree, "npu_cores")}


def _part(kind: Callable[..., T], tree: dict[str, Any] | None) -> T | None:
    if not tree:
        return None
    odd = [key for key, value in tree.items() if not isinstance(value, str) and key not in NUMBERS]
    if odd:
        raise TypeError(f"{odd[0]} is not text")
    return kind(**tree)


def is_plain_name(name: object) -> bool:
    """Whether this is the plain name of a file, and not bundle.yaml."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= 255:
        return False
    return name == Path(name).name and name not in {".", "..", MANIFEST}


def _check_names(path: Path, manifest: Manifest) -> None:
    parts = [part.file for part in (manifest.npu, manifest.cpu) if part]
    tokenizer = [manifest.tokenizer] if manifest.tokenizer else []
    named = [*parts, *tokenizer, *(name for adapter in manifest.adapters for name in adapter.files)]
    for name in [*named, *manifest.files, *(adapter.name for adapter in manifest.adapters)]:
        if not is_plain_name(name):
            raise BundleError(f"{path}: file name {name!r} would leave the bundle; refused")
    unknown = [name for name in named if name not in manifest.files]
    if unknown:
        raise BundleError(f"{path}: {unknown[0]} has no entry under files")
