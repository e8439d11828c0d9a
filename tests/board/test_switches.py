"""Each of the profile's open questions and traps changes what it says, and nothing without it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import DEMO_TOKENIZER, LAYOUTS
from reference import Reference, read
from sentencepiece import SentencePieceProcessor
from simlib import DISTINCT, ERROR, FINISH, GET_HIDDEN, NORMAL, WAITING, Abi, Handle, Run
from simrequest import Given
from simwriter import Checkpoint, write_checkpoint

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Profile = Callable[[str], Path]
    Said = Callable[[], list[str]]
    Outside = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.board

IDS = np.random.default_rng(71).integers(3, 250, 60).tolist()
WAIT_S = 20.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize(("value", "last"), [("true", FINISH), ("false", NORMAL), ("error", ERROR)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_finish_after_abort(
    layout: str, value: str, last: int, abis: dict[str, Abi], tiny: Path, profile: Profile
) -> None:
    profile(f"compute: false; token_delay_us: 1000; finish_after_abort: {value}")
    with Handle(abis[layout], tiny) as handle:
        runs: list[Run] = []
        thread = handle.in_thread(lambda: runs.append(handle.run(IDS)))
        until(lambda: len(handle.current.tokens) >= 2)
        assert handle.call("abort") == 0
        thread.join(WAIT_S)
        assert runs[0].returned == 0 and runs[0].states[-1] == last and runs[0].states.count(NORMAL) > 1


@pytest.mark.parametrize("busy", [0, 1])
def test_is_running_busy(busy: int, abi: Abi, tiny: Path, profile: Profile) -> None:
    profile(f"compute: false; token_delay_us: 1000; is_running_busy: {busy}")
    with Handle(abi, tiny) as handle:
        assert handle.call("is_running") == 1 - busy
        handle.run(IDS, asynchronous=True)
        assert handle.call("is_running") == busy
        handle.call("abort")
        until(lambda: handle.call("is_running") == 1 - busy)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_bos(
    layout: str, abis: dict[str, Abi], demo_words: Path, profile: Profile, prompt_ids: Callable[..., list[int]]
) -> None:
    seen = {}
    for value in ("once", "twice"):
        profile(f"text_bos: {value}")
        with Handle(abis[layout], demo_words, max_new_tokens=1) as handle:
            seen[value] = prompt_ids(handle, Given(text="hi"))
            assert prompt_ids(handle, [2, 5]) == [2, 5]
    if layout == "1.1.0":
        assert seen["twice"] == seen["once"]  # there is no template whose <bos> could be the second
    else:
        assert seen["twice"] == [2, *seen["once"]] and seen["once"][:2] == [2, 106]


def test_kv_dtype(abi: Abi, model: Callable[[str, str], Path], profile: Profile) -> None:
    path = model("synthetic", "fp16")
    whole = Reference(read(path)).run(IDS)[1]
    halved = Reference(read(path), half=True).run(IDS)[1]
    for value, expected, other in (("f32", whole, halved), ("f16", halved, whole)):
        profile(f"kv_dtype: {value}")
        with Handle(abi, path) as handle:
            values = handle.run(IDS, mode=GET_HIDDEN).values
        assert values is not None
        near, far = np.abs(values - expected), np.abs(values - other)
        assert near.mean() < 0.25 * far.mean() and far.max() > 1e-4


def test_kv_sliding(
    abi: Abi, tiny: Path, profile: Profile, model: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """tiny-gemma2 has a window of 16; tiny-gemma1 has none."""

    def computed(handle: Handle, *prompts: list[int]) -> list[int]:
        return [handle.run(prompt, new=1).perf["prefill_tokens"] for prompt in prompts]

    for value in ("full", "window"):
        profile(f"kv_sliding: {value}")
        with Handle(abi, tiny) as handle:
            longer = IDS[:40]
            assert computed(handle, IDS[:30], longer, [*longer, 1, 2], [*longer, 1, 2, *IDS[:11]]) == [
                30, 10, 2, 11]  # fmt: skip
            assert computed(handle, [*IDS[:8], 4]) == [9 if value == "window" else 1]
            assert computed(handle, [*IDS[:5], 4]) == [1]  # within the window it goes back
            handle.clear()
            assert computed(handle, IDS[:30]) == [30]
            assert computed(handle, IDS[:30]) == [30 if value == "window" else 1]
            handle.on_token = lambda run: 1
            handle.run(IDS[:30], new=2)
            assert handle.clear([(20, 30)]) == (-1 if value == "window" else 0)
        with Handle(abi, model("tiny-gemma1", "w8a8")) as handle:
            assert computed(handle, IDS[:30], IDS[:30]) == [30, 1]


def test_kv_sliding_and_a_loaded_cache(abi: Abi, tiny: Path, profile: Profile, tmp_path: Path) -> None:
    profile("kv_sliding: window")
    with Handle(abi, tiny) as handle:
        handle.run(IDS[:30], new=1, save=tmp_path / "c")
        handle.clear()
        handle.texts("load_prompt_cache", str(tmp_path / "c"))
        assert handle.run(IDS[:40], new=1).perf["prefill_tokens"] == 10
        handle.clear()
        assert handle.run(IDS[:20], new=1).perf["prefill_tokens"] == 20


def test_context_full(abi: Abi, tiny: Path, profile: Profile, said: Said) -> None:
    profile("compute: false; context_full: stop")
    with Handle(abi, tiny, max_context_len=32) as handle:
        run = handle.run(IDS[:4], new=100)
        assert len(run.tokens) == 29 and run.states[-1] == FINISH  # 4 + 28 in the cache, and the one they lead to
        assert "I rkllm: context is full[32], generation ends" in said()


@pytest.mark.parametrize("layout", ["1.2.1", "1.3.0"])
def test_many_eos(
    layout: str,
    abis: dict[str, Abi],
    tiny: Path,
    checkpoints: dict[str, Checkpoint],
    tmp_path: Path,
    profile: Profile,
) -> None:
    params: dict[str, Any] = {"presence_penalty": 1000.0, "max_new_tokens": 8}
    with Handle(abis[layout], tiny, **params) as handle:
        plain = handle.run(IDS[:4]).tokens
    base = checkpoints["tiny-gemma2"]
    path = write_checkpoint(tmp_path / "m.sim", Checkpoint(base.keys, base.weights, None, {"eos": f"1,{plain[3]}"}))
    for value in ("default", "true", "false"):
        profile(f"many_eos: {value}")
        stops = value == "true" or (value == "default" and layout == "1.3.0")
        with Handle(abis[layout], path, **params) as handle:
            told = plain[: 3 + (layout != "1.1.0")]  # from 1.2.1 on the end id comes as a token
            assert handle.run(IDS[:4]).tokens == (told if stops else plain)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_template_affects_tokens(
    layout: str, abis: dict[str, Abi], demo_words: Path, profile: Profile, prompt_ids: Callable[..., list[int]]
) -> None:
    sp = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())
    profile("template_affects_tokens: true")
    with Handle(abis[layout], demo_words, max_new_tokens=1) as handle:
        if layout == "1.1.0":
            assert prompt_ids(handle, [2, 70]) == [2, 70]
            return
        around = sp.encode("<start_of_turn>user\n"), sp.encode("<end_of_turn>\n<start_of_turn>model\n")
        assert prompt_ids(handle, [2, 70]) == [2, *around[0], 2, 70, *around[1]]
        handle.texts("set_chat_template", "", "Q", "")
        assert prompt_ids(handle, [70]) == [2, *sp.encode("Q"), 70]
        handle.texts("set_chat_template", "", "", "")
        assert prompt_ids(handle, [2, 70]) == [2, 70]


@pytest.mark.parametrize(("split", "null"), [(False, False), (True, False), (False, True)])
def test_split_characters_and_null_text(
    split: bool, null: bool, abi: Abi, checkpoints: dict[str, Checkpoint], tmp_path: Path, profile: Profile
) -> None:
    pieces = [b""] * 512
    pieces[256:262] = [b"a", b"\xf0\x9f", b"\x98", b"\x80b", b"", b"\xc3"]
    base = checkpoints["tiny-gemma2"]
    path = write_checkpoint(tmp_path / "m.sim", Checkpoint(base.keys, base.weights, pieces))
    profile(f"compute: false; split_characters: {str(split).lower()}; null_text: {str(null).lower()}")
    with Handle(abi, path) as handle:
        run = handle.run(IDS[:4], new=6)
    nothing = None if null else b""
    if split:
        assert run.texts == [*pieces[256:262], None] and run.states == [NORMAL] * 6 + [FINISH]
    else:
        assert run.texts == [b"a", nothing, nothing, b"\xf0\x9f\x98\x80b", nothing, nothing, None]
        assert run.states == [NORMAL, WAITING, WAITING, NORMAL, NORMAL, WAITING, FINISH]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_callback_after_destroy(layout: str, abis: dict[str, Abi], tiny: Path, profile: Profile) -> None:
    profile("compute: false; callback_after_destroy_ms: 20")
    handle = Handle(abis[layout], tiny, max_new_tokens=2)
    run, came, threads = handle.run(IDS[:4]), threading.Event(), []

    def late(run: Run) -> int:
        threads.append(threading.current_thread())
        came.set()
        return 0

    handle.on_token = late
    assert handle.call("destroy") == 0
    assert came.wait(WAIT_S)
    assert run.states[3:] == [NORMAL] and run.ids[3:] == [0] and threads != [threading.main_thread()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_silent_fail(layout: str, abis: dict[str, Abi], tiny: Path, profile: Profile, said: Said) -> None:
    profile("init: silent_fail; init_size: 4096")
    with Handle(abis[layout], tiny) as handle:
        assert handle.returned == 0 and handle.handle
        lines = said()
        assert "E RKNN: failed to malloc npu memory, size: 4096, flags: 0x2" in lines
        assert "rknn_init fail! ret=-1" in lines
        for _ in range(2):
            run = handle.run(IDS[:4])
            assert (run.returned, run.states, run.tokens) == (-1, [ERROR], [])
            assert "E rkllm: matmul(w8a8) run failed" in said()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_buffers(abi: Abi, tiny: Path, profile: Profile, said: Said) -> None:
    import resource

    profile("compute: false; threads: 1; buffers: 100")
    before = open_files()
    with Handle(abi, tiny) as handle:
        assert open_files() - before == 100
        said()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 150, hard))
        try:
            second = Handle(abi, tiny)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert second.returned == -1 and not second.handle
        assert [line for line in said() if line.startswith("E")] == [
            "E RKNN: failed to allocate handle, ret: -1, errno: 24, errstr: Too many open files",
            "E RKNN: failed to malloc npu memory, size: 232128512, flags: 0x2", "E RKNN: load model file error!",
            "E rkllm: rkllm_init failed",
        ]  # fmt: skip
        assert open_files() - before == 100
        handle.run(IDS[:3], new=1)
    assert open_files() == before


def test_exclusive_domains(abi: Abi, tiny: Path, profile: Profile, said: Said, outside: Outside) -> None:
    path = profile("exclusive_domains: true; compute: false")
    environment = {"RK_GEMMA_SIM_PROFILE": str(path)}

    def elsewhere() -> bool:
        return '"init": 0' in outside(tiny, environment=environment).stdout

    assert elsewhere()
    with Handle(abi, tiny) as handle:
        assert handle.returned == 0
        said()
        assert Handle(abi, tiny).returned == -1
        lines = said()
        assert "E RKNN: failed to allocate handle, ret: -1, errno: 14, errstr: Bad address" in lines
        assert not elsewhere()
        with Handle(abi, tiny, extend={"base_domain_id": 1}) as other:
            assert other.returned == 0
    assert elsewhere()
    with Handle(abi, tiny) as handle:
        assert handle.returned == 0
    assert '"init": 0' in outside(tiny, profile="simulator:\n  compute: false\n").stdout


@pytest.mark.parametrize("line", ["kv_dtype: bf16", "is_running_busy: 2", "finish_after_abort: maybe", "buffers: x",
                                  "text_bos: 2", "null_text: 1", "init: silent"])  # fmt: skip
def test_a_value_that_is_none(line: str, abi: Abi, tiny: Path, profile: Profile, said: Said) -> None:
    profile(line)
    assert Handle(abi, tiny).returned == -1
    key, value = line.split(": ")
    assert f"E rkllm: simulator profile: simulator.{key} cannot be '{value}'" in said()


def test_nothing_changes_without_them(abi: Abi, tiny: Path, profile: Profile) -> None:
    with Handle(abi, tiny) as handle:
        plain = handle.run(IDS[:9], new=9, sampling=DISTINCT)
    profile(
        "finish_after_abort: true; is_running_busy: 1; text_bos: once; kv_dtype: f32; kv_sliding: full; "
        "context_full: shift; many_eos: default; template_affects_tokens: false; split_characters: false; "
        "null_text: false; callback_after_destroy_ms: 0; buffers: 0; exclusive_domains: false; init: ok"
    )
    with Handle(abi, tiny) as handle:
        same = handle.run(IDS[:9], new=9, sampling=DISTINCT)
    assert (plain.tokens, plain.states, plain.texts) == (same.tokens, same.states, same.texts)
