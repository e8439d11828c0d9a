"""NPU weights through Rockchip's toolkit: model.rkllm and NAME.lora.rkllm."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rk_gemma.export.plain import plain_bytes, write_plain
from rk_gemma.export.progress import tell
from rk_gemma.toolkit import homes
from rk_gemma.toolkit.calibration import check_calibration, write_dataset
from rk_gemma.toolkit.conversion import convert
from rk_gemma.toolkit.predict import check_memory, forecast
from rk_gemma.toolkit.process import watched
from rk_gemma.toolkit.result import Wanted, check_result
from rk_gemma.toolkit.settings import (
    PLATFORM,
    Settings,
    check_model,
    check_release,
    check_words,
    doubts,
    file_limit,
    in_words,
    steps,
)
from rk_gemma_runtime.bundle import Adapter, NpuPart
from rk_gemma_runtime.errors import BundleError, CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma.checkpoint import ModelSpec
    from rk_gemma.export.lora.adapter import LoraAdapter
    from rk_gemma.export.model import Model
    from rk_gemma.toolkit.homes import Environment
    from rk_gemma.toolkit.predict import Forecast

SCRATCH = "toolkit"
LORA_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Preparation:
    """What a conversion takes beside its result: bytes of `scratch`. `lines` are warnings; `force` was asked for."""

    scratch: int
    lines: tuple[str, ...]
    force: bool


class RkllmWriter:
    """An NpuWriter (see `npu.py`) that drives the toolkit in its own interpreter."""

    format = "rkllm"
    file = "model.rkllm"
    adapter_suffix = ".lora.rkllm"

    def __init__(self, dtype: str, settings: Settings | None = None) -> None:
        """Find the installed toolkit and check what can be checked without a model. Raises UsageError,
        EnvironmentFault."""
        self._dtype = dtype
        self._settings = settings or Settings()
        check_words(self._settings)
        self._env: Environment = homes.find(self._settings.environment)
        check_release(self._settings, self._env.toolkit)
        self._model: Model | None = None
        self._forecast: Forecast | None = None
        self._file_limit = 0

    def check(self, spec: ModelSpec) -> None:
        """Raise UsageError for what this release of the toolkit cannot convert for an RK3588."""
        check_model(self._settings, self._dtype, spec.shape, self._env.toolkit)

    def prepare(self, model: Model, adapters: int) -> Preparation:
        """Check what needs the model, and predict what it takes. Raises UsageError, EnvironmentFault, InputError."""
        settings, shape = self._settings, model.spec.shape
        if settings.rank and adapters:
            raise UsageError(f"--algorithm {settings.algorithm} writes a LoRA of its own; leave out --lora-adapter")
        if not model.text.vocabulary:
            raise CheckpointError(
                f"{model.checkpoint.directory}: no tokenizer, and the toolkit puts one into the .rkllm; copy"
                " tokenizer.model of the base model into the directory"
            )
        if settings.calibration:
            check_calibration(settings.calibration)
        self._model, self._forecast = model, forecast(shape, settings.device)
        lines = [*doubts(settings, self._dtype, shape, self._env.toolkit)]
        lines += filter(None, [check_memory(self._forecast, settings.force)])
        return Preparation(plain_bytes(model.checkpoint), tuple(lines), settings.force)

    def work(self, spec: ModelSpec) -> int:
        """Count the bytes that the file will have, about: the conversion's progress is told in them."""
        return spec.shape.parameters + 2 * spec.shape.head.size

    def write(self, path: Path, model: Model, on_bytes: Callable[[int], None]) -> None:
        """Convert the model, unless an adapter's conversion has made it already. Raises ToolkitError, InputError."""
        if not path.is_file():
            with self._converted(path.parent, model, None, on_bytes) as made:
                os.replace(made, path)
        self._file_limit = self._checked(path, model)

    def write_adapter(
        self, path: Path, adapter: LoraAdapter, spec: ModelSpec, on_bytes: Callable[[int], None]
    ) -> None:
        """Convert an adapter with its base, and keep the base for `write`. Raises ToolkitError, InputError."""
        if self._model is None:
            raise UsageError("an adapter is converted together with its model")
        with self._converted(path.parent, self._model, adapter.source.directory, lambda done: None) as made:
            self._take_lora(made, path)
        on_bytes(4 * adapter.parameters)

    def own_adapter(self) -> Adapter | None:
        """Return the adapter that the algorithm itself makes, which the model needs; None for most."""
        if not self._settings.rank:
            return None
        name = self._settings.algorithm.replace("_", "-")
        file = f"{name}{self.adapter_suffix}"
        return Adapter(name, file, None, f"rkllm-toolkit {self._env.toolkit}", self._settings.rank)

    def write_own(self, path: Path) -> None:
        """Convert the model with the adapter that the algorithm makes. Raises as `write`."""
        if self._model is None:
            raise UsageError("the adapter is made together with its model")
        with self._converted(path.parent, self._model, None, lambda done: None) as made:
            self._take_lora(made, path)

    def part(self, context: int) -> NpuPart:
        """Make the entry of bundle.yaml for the weights."""
        limit = self._file_limit or file_limit(self._env.toolkit, context)
        words = in_words(self._settings, self._dtype)
        return NpuPart(
            self.file, self.format, self._dtype, PLATFORM, self._env.toolkit, limit, self._settings.cores, words
        )

    def _take_lora(self, made: Path, path: Path) -> None:
        lora = made.with_name(f"{made.stem}_lora{made.suffix}")
        if not lora.is_file() or not lora.stat().st_size:
            raise BundleError(
                f"{lora.name}: the toolkit returned 0 and wrote no such file; use another release of it"
            )
        os.replace(made, path.with_name(self.file))
        os.replace(lora, path)

    @contextmanager
    def _converted(
        self, stage: Path, model: Model, lora: Path | None, on_bytes: Callable[[int], None]
    ) -> Iterator[Path]:
        """Convert in a scratch directory, which is gone afterwards."""
        scratch = (stage / SCRATCH).absolute()
        shutil.rmtree(scratch, ignore_errors=True)
        with watched(scratch):  # from before it is made: what is written for the toolkit may take minutes
            scratch.mkdir()
            try:
                yield self._convert(scratch, model, lora, on_bytes)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _convert(self, scratch: Path, model: Model, lora: Path | None, on_bytes: Callable[[int], None]) -> Path:
        tell(f"{self.file}: rkllm-toolkit {self._env.toolkit} ({self._env.name}), {self._forecast}")
        write_plain(scratch / "model", model)
        given = self._settings.calibration
        dataset = write_dataset(given, scratch / "dataset.json", model.text) if given else None
        target = scratch / self.file
        calls = steps(
            self._settings, self._env.toolkit, self._dtype, model.spec.shape.context, model=str(scratch / "model"),
            target=str(target), lora=_plain_lora(scratch / "lora", lora) if lora else None, dataset=dataset,
        )  # fmt: skip
        advance = _Advance(self.file, self.work(model.spec), on_bytes)
        convert(self._env, calls, scratch, advance, lambda line: tell(f"{self.file}: {line}"))
        if not target.is_file():
            raise BundleError(
                f"{self.file}: the toolkit returned 0 and wrote no such file; use another release of it"
            )
        return target

    def _checked(self, path: Path, model: Model) -> int:
        settings, shape = self._settings, model.spec.shape
        limit = file_limit(self._env.toolkit, shape.context)
        wanted = Wanted(self._env.toolkit, settings.cores, limit, self._dtype, shape)
        return check_result(path, wanted, tell)


class _Advance:
    """Tells phases as lines and the share of the whole as bytes."""

    def __init__(self, name: str, total: int, on_bytes: Callable[[int], None]) -> None:
        self._name, self._total, self._on_bytes = name, total, on_bytes
        self._phase, self._told = "", 0

    def __call__(self, phase: str, share: float) -> None:
        if phase != self._phase:
            self._phase = phase
            tell(f"{self._name}: {phase}")
        now = int(share * self._total)
        if now > self._told:
            self._on_bytes(now - self._told)
            self._told = now


def _plain_lora(folder: Path, source: Path) -> str:
    """Make a directory of the two files that were checked."""
    folder.mkdir()
    for name in LORA_FILES:
        os.symlink((source / name).resolve(), folder / name)
    return str(folder)
