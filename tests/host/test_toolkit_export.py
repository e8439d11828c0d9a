"""`rk-gemma export --npu rkllm` through stand-ins for the toolkit's releases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosttools import GEMMA2, write_checkpoint
from lorakit import halves, module_names, write_peft
from standin import VERSIONS
from toolkitkit import DEMO, calls, checkpoint

from rk_gemma.toolkit.calibration import LONGEST
from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.chat.template import render
from rk_gemma_runtime.chat.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # each starts programs

LATER = [pytest.param(v, marks=() if v == "1.2.3" else pytest.mark.slow) for v in VERSIONS]


@pytest.mark.parametrize("version", LATER)
def test_a_release_sees_its_own_arguments_and_its_file_becomes_a_bundle(
    version: str, tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    name, record = toolkit(version), tmp_path / "record"
    source = checkpoint(tmp_path / "model", record=str(record))
    (source / "modeling_evil.py").write_text("raise SystemExit")
    done = main("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", name, "--npu-cores", "2")
    assert done.code == 0, done.stderr
    later, last = version >= "1.2.0", version >= "1.3.0"
    (_, load), (_, build), (_, export) = calls(record)
    scratch = tmp_path / ".b.partial" / "toolkit"
    assert load == {"model": str(scratch / "model"), "model_lora": None, "device": "cpu"} | (
        {"dtype": "float32", "custom_config": None, "load_weight": True} if later else {}
    )
    assert build == {
        "do_quantization": True, "optimization_level": 1, "quantized_dtype": "w8a8", "quantized_algorithm": "normal",
        "target_platform": "rk3588", "num_npu_core": 2, "extra_qparams": None, "dataset": None, "hybrid_rate": 0.0,
    } | ({"max_context": 1024} if later else {})  # fmt: skip
    assert export == {"export_path": str(scratch / "model.rkllm")} | (
        {"export_tokenizer": True, "export_embedding": True} if last else {}
    )
    files = json.loads((tmp_path / "record.files").read_text())
    assert files == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.model",
                     "tokenizer_config.json"]  # fmt: skip
    bundle = Bundle.open(tmp_path / "b")
    bundle.verify()
    npu = bundle.manifest.npu
    assert npu is not None
    assert (npu.file, npu.format, npu.toolkit, npu.platform) == ("model.rkllm", "rkllm", version, "RK3588")
    assert (npu.npu_cores, npu.max_context, bundle.manifest.context) == (2, 1024 if later else 4096, 1024)
    assert npu.library == f"librkllmrt >= {version}"
    assert "optimization_level 1" in npu.options
    assert (tmp_path / "b" / "model.rkllm").read_bytes().endswith(f"rkllm-toolkit version: {version}".encode())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "model", "record", "record.files"]


def test_progress_arrives_and_the_last_line_tells_the_way_to_the_board(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    done = main("export", checkpoint(tmp_path / "m"), "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit())
    phases = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("model.rkllm: ")]
    assert phases[0] == "writing" and phases[2:] == ["starting", "loading", "building", "exporting"]
    assert "GB of memory and less than a minute" in phases[1]
    last = done.stderr.splitlines()[-1]
    assert "librkllmrt >= 1.2.3" in last
    assert f"`rsync -a {tmp_path / 'b'} USER@BOARD:`" in last and "`rk-gemma chat b`" in last


def test_the_toolkits_own_lines_are_for_debug(
    tmp_path: Path, toolkit: Callable[..., str], cli: Callable[..., Any]
) -> None:
    name = toolkit()
    import os

    env = {"RK_GEMMA_HOME": os.environ["RK_GEMMA_HOME"]}
    source = checkpoint(tmp_path / "m")
    quiet = cli("export", source, "-o", tmp_path / "a", "--npu", "rkllm", "--toolkit", name, env=env)
    loud = cli("--debug", "export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", name, env=env)
    assert (quiet.returncode, loud.returncode) == (0, 0), quiet.stderr
    assert "max_context_limit" not in quiet.stderr and "max_context_limit" in loud.stderr


def test_calibration_has_gemmas_template(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    data, record = tmp_path / "mine.jsonl", tmp_path / "record"
    data.write_text('{"prompt": " How are you? ", "answer": "Fine."}\n\n{"input": "1+1", "target": "2"}\n')
    source = checkpoint(tmp_path / "m", record=str(record), keep_dataset=str(tmp_path / "kept.json"))
    done = main(
        "export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(), "--calibration", data
    )
    assert done.code == 0, done.stderr
    rows = json.loads((tmp_path / "kept.json").read_text())
    tokenizer = Tokenizer.open(DEMO / "tokenizer.model")
    wanted = render([{"role": "user", "content": "How are you?"}], tokenizer).text.removeprefix("<bos>")
    assert rows == [{"input": wanted, "target": "Fine.<end_of_turn>"},
                    {"input": wanted.replace("How are you?", "1+1"), "target": "2<end_of_turn>"}]  # fmt: skip
    assert calls(record)[1][1]["dataset"].endswith("dataset.json")


def test_the_builtin_set_is_many_languages_and_short() -> None:
    from rk_gemma.toolkit.calibration import entries_of

    entries = entries_of("builtin")
    text = "".join(entry.prompt for entry in entries)
    scripts = [(0x41, 0x7A), (0x400, 0x4FF), (0x600, 0x6FF), (0x900, 0x97F), (0x3040, 0x30FF), (0x4E00, 0x9FFF),
               (0xAC00, 0xD7AF)]  # fmt: skip
    assert 28 <= len(entries) <= 40
    assert all(any(low <= ord(c) <= high for c in text) for low, high in scripts)
    assert all(entry.answer and len(entry.prompt) < 200 and len(entry.answer) < 300 for entry in entries)


@pytest.mark.parametrize(("text", "said"), [
    ("", "0 prompts"), ("\n\n", "0 prompts"), ("{", "line 1 is not JSON"), ('{"a": 1}', "line 1: not a prompt"),
    ('{"prompt": 3}', "line 1: not a prompt"), ('{"prompt": "x", "answer": null}', "not a prompt"), 
    ("[1]", "entry 1"),
    ('{"prompt": "<start_of_turn>user"}', "bare text"), ('{"prompt": "a", "answer": "b<eos>"}', "bare text"),
    ('{"prompt": "x"}\n' * 600, "600 prompts; give 1 to 512"), ("[", "not a JSON list"), ("\ufffe", "not UTF-8"),
    (json.dumps({"prompt": "x ? " * LONGEST}), "tokens; at most"), ('{"prompt": "\\ud800"}', "not valid Unicode"),
])  # fmt: skip
def test_bad_calibration_is_one_line(
    text: str, said: str, tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_bytes(b"\xff\xfe" if text == "\ufffe" else text.encode("utf-8", "surrogatepass"))
    done = main("export", DEMO, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(), "--calibration", data)
    assert done.code == 3
    assert said in done.stderr.splitlines()[-1] and "mine.jsonl" in done.stderr.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.jsonl"]


@pytest.mark.parametrize(("version", "options", "code", "said"), [
    ("1.2.3", ["--npu-cores", "4"], 2, "choose 1 or 2 or 3"),
    ("1.2.3", ["--npu-cores", "0"], 2, "choose 1 or 2 or 3"),
    ("1.2.3", ["--optimization-level", "2"], 2, "choose 0 or 1"),
    ("1.2.3", ["--hybrid-rate", "1"], 2, "from 0 to below 1"),
    ("1.2.3", ["--hybrid-rate", "nan"], 2, "from 0 to below 1"),
    ("1.2.3", ["--hybrid-rate", "-0.1"], 2, "from 0 to below 1"),
    ("1.2.3", ["--algorithm", "grq"], 2, "an RK3588 takes w8a8 only"),
    ("1.2.3", ["--algorithm", "gdq_r8"], 2, "an RK3588 takes w8a8 only"),
    ("1.2.3", ["--algorithm", "normal_r65"], 2, "N from 1 to 64"),
    ("1.2.3", ["--algorithm", "normal_r0"], 2, "N from 1 to 64"),
    ("1.2.3", ["--algorithm", "fast"], 2, "choose normal"),
    ("1.2.3", ["--device", "npu"], 2, "choose cpu or cuda"),
    ("1.2.3", ["--load-dtype", "int8"], 2, "choose float32"),
    ("1.2.3", ["--context", "1000"], 2, "choose 992 or 1024"),
    ("1.2.3", ["--dtype", "w4a16"], 2, "choose w8a8"),
    ("1.2.3", ["--dtype", "w8a8_g512"], 2, "does not fit"),
    ("1.2.3", ["--no-export-tokenizer"], 2, "since 1.3.0, this is 1.2.3"),
    ("1.2.3", ["--no-export-embedding"], 2, "since 1.3.0, this is 1.2.3"),
    pytest.param("1.1.4", ["--algorithm", "normal_r8"], 2, "since 1.2.1, this is 1.1.4", marks=pytest.mark.slow),
    pytest.param("1.1.4", ["--load-dtype", "float16"], 2, "since 1.2.0, this is 1.1.4", marks=pytest.mark.slow),
])  # fmt: skip
def test_what_a_release_does_not_take_is_refused_before_anything(
    version: str, options: list[str], code: int, said: str, tmp_path: Path, toolkit: Callable[..., str],
    main: Callable[..., Any],
) -> None:  # fmt: skip
    done = main("export", DEMO, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(version), *options)
    assert (done.code, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("version", "context", "code"), [
    pytest.param("1.1.4", 4096, 0, marks=pytest.mark.slow), pytest.param("1.1.4", 4128, 2, marks=pytest.mark.slow),
    ("1.2.3", 16384, 0), ("1.2.3", 16416, 2),
])  # fmt: skip
def test_the_context_has_each_releases_limit(
    version: str, context: int, code: int, tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    source = checkpoint(tmp_path / "m")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32768}))
    done = main("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(version), "--cpu",
                "none", "--context", context)  # fmt: skip
    assert done.code == code, done.stderr
    assert code == 0 or "makes files for at most" in done.stderr


@pytest.mark.parametrize(
    "option", [["--toolkit", "x"], ["--calibration", "builtin"], ["--npu-cores", "1"], ["--force"]]
)
def test_options_of_the_toolkit_are_not_ignored_elsewhere(
    option: list[str], tmp_path: Path, main: Callable[..., Any]
) -> None:
    done = main("export", DEMO, "-o", tmp_path / "b", *option)
    assert done.code == 2 and "--npu rkllm" in done.stderr


def test_gemma_2_in_groups_is_warned_of(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    done = main("export", checkpoint(tmp_path / "m"), "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(),
                "--dtype", "W8A8_G128", "--cpu", "none")  # fmt: skip
    assert done.code == 0, done.stderr
    assert "flags: 0x2" in done.stderr


def test_too_little_memory_is_refused_unless_forced(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rk_gemma.toolkit import predict

    monkeypatch.setattr(predict, "free_memory", lambda: 500_000_000)
    ask = ("export", checkpoint(tmp_path / "m"), "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit())
    done = main(*ask)
    assert done.code == 3 and "needs about 1.1 GB of memory and 0.5 GB are free" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    forced = main(*ask, "--force")
    assert forced.code == 0 and "without a word" in forced.stderr


def test_too_little_disk_is_refused_unless_forced(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rk_gemma.export import space

    monkeypatch.setattr(space, "_free", lambda folder: 1000)
    ask = ("export", checkpoint(tmp_path / "m"), "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit())
    done = main(*ask)
    assert done.code == 3 and "no space left" in done.stderr
    assert main(*ask, "--force").code == 0


def test_an_adapter_goes_along(tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]) -> None:
    config = {**GEMMA2, "vocab_size": 2048, "max_position_embeddings": 64, "standin": {"record": str(tmp_path / "r")}}
    source = write_checkpoint(tmp_path / "base", config)
    (source / "tokenizer.model").write_bytes((DEMO / "tokenizer.model").read_bytes())
    peft = write_peft(tmp_path / "peft", halves(config, module_names(range(2))))
    (peft / "adapter_model.bin").write_bytes(b"pickle")
    done = main("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(), "--lora-adapter",
                f"x={peft}")  # fmt: skip
    assert done.code == 0, done.stderr
    bundle = Bundle.open(tmp_path / "b")
    bundle.verify()
    assert [a.npu for a in bundle.manifest.adapters] == ["x.lora.rkllm"]
    made = calls(tmp_path / "r")
    assert len(made) == 3  # the base comes from the same conversion
    assert made[0][1]["model_lora"] == str(tmp_path / ".b.partial" / "toolkit" / "lora")


def test_an_algorithm_with_a_lora_of_its_own(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    done = main("export", checkpoint(tmp_path / "m"), "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit(),
                "--algorithm", "normal_r16")  # fmt: skip
    assert done.code == 0, done.stderr
    adapter = Bundle.open(tmp_path / "b").manifest.adapters[0]
    assert (adapter.name, adapter.npu, adapter.cpu, adapter.rank) == ("normal-r16", "normal-r16.lora.rkllm", None, 16)
    assert "--adapter normal-r16" in done.stderr.splitlines()[-1]


def test_without_a_tokenizer_there_is_no_conversion(
    tmp_path: Path, toolkit: Callable[..., str], main: Callable[..., Any]
) -> None:
    source = write_checkpoint(tmp_path / "m", GEMMA2)
    done = main("export", source, "-o", tmp_path / "b", "--npu", "rkllm", "--toolkit", toolkit())
    assert done.code == 3 and "no tokenizer" in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
