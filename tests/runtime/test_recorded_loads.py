"""What reaches the library of a bundle with an `.rkllm`: path, context, domain, sampling, LoRA; and where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bundlekit import rkllm, write_rkllm_bundle

from rk_gemma_runtime import Assistant, NpuError, NpuReason, Sampling
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from tests.recording.kit import build

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.board  # it needs what the simulator needs: a compiler

EOS = (1, 107)
IDS = (2, 5, 6)
SPOKEN = "9 8 7 107 6 5"  # the file's own end id is 1, the manifest has 107 as well
SAMPLING = Sampling(temperature=0.5, top_k=7, top_p=0.75, repeat_penalty=1.25)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "recording"


class Recorder:
    """A recording library, and what it has written down."""

    def __init__(self, library: Path, record: Path) -> None:
        self.library, self._record = library, record

    def calls(self, name: str) -> list[str]:
        """The values of one name, in order."""
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name]

    def last(self, *names: str) -> tuple[str, ...]:
        return tuple(self.calls(name)[-1] for name in names)


@pytest.fixture
def recorder(request: pytest.FixtureRequest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    record = tmp_path / "record"
    monkeypatch.setenv("RECORDING", str(record))
    monkeypatch.setenv("RECORDING_IDS", SPOKEN)
    return Recorder(build(home, request.param), record)


def answer(folder: Path, recorder: Recorder, **options: Any) -> list[int]:
    """The ids of an answer from the NPU."""
    chosen = {"backend": "npu", "librkllmrt": str(recorder.library), "sampling": SAMPLING, **options}
    with Assistant.open(folder, **chosen) as gemma:
        for _ in gemma.generate(IDS, max_tokens=12):
            pass
        assert gemma.last is not None and gemma.last.backend == "npu"
        return list(gemma.last.ids)


@pytest.mark.parametrize("recorder", LAYOUTS, indirect=True)
def test_what_the_manifest_says_reaches_the_library(recorder: Recorder, tmp_path: Path, request: Any) -> None:
    layout = request.node.callspec.params["recorder"]
    folder = write_rkllm_bundle(
        tmp_path / "b", npu={"toolkit": layout, "max_context": 2048}, context=1024, eos=EOS,
        adapters={"pirate": rkllm(layout)},
    )  # fmt: skip
    assert answer(folder, recorder, adapter="pirate", adapter_scale=0.5) == [9, 8, 7]
    assert recorder.last("init.layout", "init.model_path", "init.max_context_len") == (
        layout, str(folder / "model.rkllm"), "1024",
    )  # fmt: skip
    assert recorder.last("init.base_domain_id", "init.is_async") == ("0", "0")
    names = ("top_k", "top_p", "temperature", "repeat_penalty")
    assert recorder.last(*(f"init.{name}" for name in names)) == ("7", "0.75", "0.5", "1.25")
    assert recorder.last("lora.path", "lora.scale") == (str(folder / "pirate.lora.rkllm"), "0.5")
    assert recorder.last("run.ids", "run.lora") == ("2,5,6", recorder.calls("lora.name")[-1])
    if LAYOUTS[layout].sampling_per_run:
        assert recorder.last("init.ignore_eos_token", "run.top_k", "run.temperature") == ("0", "7", "0.5")


@pytest.mark.parametrize("recorder", ["1.1.0", "1.3.0"], indirect=True)
@pytest.mark.parametrize(("eos", "ids"), [((1, 107), [9, 8, 7]), ((8,), [9]), ((1,), [9, 8, 7, 107, 6, 5])])
def test_an_answer_ends_at_the_bundles_end_ids_whatever_the_library_knows(
    recorder: Recorder, tmp_path: Path, eos: tuple[int, ...], ids: list[int]
) -> None:
    folder = write_rkllm_bundle(tmp_path / "b", npu={"toolkit": "1.1.0"}, eos=eos)
    assert answer(folder, recorder) == ids
    assert recorder.calls("lora.name") == []


@pytest.mark.parametrize("recorder", ["1.2.1"], indirect=True)
@pytest.mark.parametrize(
    ("npu", "options", "context"),
    [
        ({"max_context": 512}, {}, "512"), ({"max_context": 512}, {"context": 64}, "64"),
        ({"max_context": 512}, {"context": 1024, "shrink": True}, "512"), ({"npu_cores": 1}, {}, "1024"),
    ],
)  # fmt: skip
def test_the_context_is_the_bundles_within_the_files(
    recorder: Recorder, tmp_path: Path, npu: dict[str, Any], options: dict[str, Any], context: str
) -> None:
    folder = write_rkllm_bundle(tmp_path / "b", npu={"toolkit": "1.2.1", **npu}, context=1024, eos=EOS)
    answer(folder, recorder, **options)
    assert recorder.last("init.max_context_len") == (context,)


@pytest.mark.parametrize("recorder", ["1.2.1"], indirect=True)
@pytest.mark.parametrize(
    ("npu", "options", "reason"),
    [
        ({"toolkit": "1.3.0"}, {}, NpuReason.MODEL_VERSION), ({"toolkit": "1.2.2"}, {}, NpuReason.MODEL_VERSION),
        ({"toolkit": "1.2.0", "max_context": 512}, {"context": 1024}, NpuReason.CONTEXT_TOO_LONG),
    ],
)  # fmt: skip
def test_what_is_refused_never_reaches_the_library_unless_forced(
    recorder: Recorder, tmp_path: Path, npu: dict[str, Any], options: dict[str, Any], reason: NpuReason
) -> None:
    folder = write_rkllm_bundle(tmp_path / "b", npu=npu, context=1024, eos=EOS)
    with pytest.raises(NpuError) as caught:
        answer(folder, recorder, **options)
    assert (caught.value.reason, recorder.calls("init.layout")) == (reason, [])
    assert "--force" in caught.value.remedy
    assert answer(folder, recorder, force=True, **options) == [9, 8, 7]
    assert recorder.calls("init.layout") == ["1.2.1"]
