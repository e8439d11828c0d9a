"""A handle's other functions: output buffers, parameters said aloud, cross attention, asynchronous handles."""

from __future__ import annotations

import ctypes as C
import gc
import re
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import LAYOUTS
from simlib import FINISH, GET_HIDDEN, GET_LOGITS, NORMAL, Abi, Handle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Said = Callable[[], list[str]]

pytestmark = pytest.mark.board

IDS = [2, 10, 20, 30]
CROSS = [layout for layout in LAYOUTS if layout in ("1.2.1", "1.3.0", "1.3.1")]


class MallInfo2(C.Structure):
    _fields_ = [(name, C.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                 "keepcost")]  # fmt: skip


def allocated() -> int:
    """Bytes that malloc has handed out in this process: resident memory would count what was freed. What earlier
    tests left to the collector goes first."""
    gc.collect()
    mallinfo = C.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo2
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


@pytest.mark.parametrize("layout", ["1.2.1", "1.3.0", "1.3.1"])
@pytest.mark.parametrize("answer", [0, 2])
def test_output_buffers_stay_until_released(layout: str, answer: int, abis: dict[str, Abi], tiny: Path) -> None:
    """From 1.3.0 each run's buffer stays, until the callback returns 2 or the handle goes."""
    ids, runs = (IDS * 30)[:120], 12
    buffer = len(ids) * 512 * 4
    at_first = allocated()
    with Handle(abis[layout], tiny) as handle:
        handle.on_values = lambda run: answer
        handle.run(ids, mode=GET_LOGITS)
        before = allocated()
        for _ in range(runs):
            assert handle.run(ids, mode=GET_LOGITS).states == [NORMAL, FINISH]
        grown = allocated() - before
    kept = 0 if layout == "1.2.1" or answer == 2 else runs * buffer
    assert abs(grown - kept) < buffer
    assert allocated() - at_first < 2 * buffer


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_states_of_every_layout(layout: str, abis: dict[str, Abi], tiny: Path) -> None:
    with Handle(abis[layout], tiny) as handle:
        run = handle.run(IDS, mode=GET_HIDDEN)
        logits = handle.run(IDS, mode=GET_LOGITS)
    assert run.states == [4 if layout == "1.1.0" else NORMAL, FINISH]
    assert run.values is not None and run.values.shape == (4, 64)
    assert logits.returned == (-1 if layout == "1.1.0" else 0)
    assert logits.values is None or logits.values.shape == (4, 512)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_said_aloud(
    layout: str, abis: dict[str, Abi], tiny: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    texts = {} if layout.startswith("1.3") else {"img_start": "<a>", "img_end": "</a>", "img_content": "<p>"}
    with Handle(abis[layout], tiny, texts=texts, top_k=7, mirostat=2, max_new_tokens=3, extend={"base_domain_id": 1}):
        lines = [line.removeprefix("I rkllm: ") for line in said()]
    old = layout == "1.1.0"
    expected = [
        "Base Domain ID: 1", *([] if old else ["Embed Flash: 1"]), f"Model Path: {tiny}", "Max Context Length: 128",
        "Max New Tokens: 3", "Top-K: 7", *([] if old else ["N Keep: -1"]), "Top-P: 0.900000", "Temperature: 0.000000",
        "Repeat Penalty: 1.000000", "Frequency Penalty: 0.000000", "Presence Penalty: 0.000000", "Mirostat: 2",
        "Mirostat Tau: 5.000000", "Mirostat Eta: 0.100000", "Skip Special Token: true", "Is Async: false",
        *(["Image Start: <a>", "Image End: </a>", "Image Content: <p>"] if texts else []),
    ]  # fmt: skip
    at = lines.index(expected[0])
    assert lines[at : at + len(expected)] == expected


@pytest.mark.parametrize("layout", CROSS)
def test_cross_attention(layout: str, abis: dict[str, Abi], tiny: Path, said: Said) -> None:
    abi, rows = abis[layout], (C.c_float * 4)()
    with Handle(abi, tiny, extend={"use_cross_attn": 1}) as handle:
        param = abi.struct("RKLLMCrossAttnParam")(num_tokens=9)
        said()
        assert handle.call("set_cross_attn_params", C.byref(param)) == -1
        assert any("is NULL" in line for line in said())
        for name in ("encoder_k_cache", "encoder_v_cache", "encoder_mask", "encoder_pos"):
            setattr(param, name, C.addressof(rows))
        assert handle.call("set_cross_attn_params", C.byref(param)) == -1
        assert said() == ["E rkllm: the model has no cross attention, 9 encoder tokens are not used"]
        assert handle.run(IDS, new=1).returned == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_asynchronous_handle(layout: str, abis: dict[str, Abi], tiny: Path) -> None:
    """is_async makes rkllm_run return at once."""
    with Handle(abis[layout], tiny, is_async=True, max_new_tokens=6) as handle:
        run = handle.run(IDS)
        end = time.monotonic() + 20
        while handle.call("is_running") and time.monotonic() < end:
            time.sleep(0.001)
        assert run.states[-1] == FINISH and len(run.tokens) <= 6


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "1.1.0"])
def test_n_keep_beyond_the_context(layout: str, abis: dict[str, Abi], tiny: Path, said: Said) -> None:
    assert Handle(abis[layout], tiny, n_keep=128).returned == -1
    assert "E rkllm: The n_keep must be less than the max_context_len" in said()


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat(version: int, abi: Abi, tiny: Path, profile: Callable[[str], Path]) -> None:
    """The mean surprise of what is drawn comes to tau, within what the model's flatness allows."""
    profile("seed: 5")
    sampling = {"mirostat": version, "mirostat_eta": 0.1, "temperature": 1.0, "top_k": 0}
    means = []
    for tau in (1.0, 3.0, 6.0):
        with Handle(abi, tiny, ignore_eos_token=True, max_context_len=128) as handle:
            tokens = handle.run(IDS, new=100, sampling={**sampling, "mirostat_tau": tau}).tokens
            logits = handle.run(IDS + tokens, mode=GET_LOGITS).values
        assert logits is not None
        odds = np.exp(logits.astype(float))
        odds /= odds.sum(1, keepdims=True)
        surprise = [-np.log2(odds[3 + i, token]) for i, token in enumerate(tokens)]
        means.append(float(np.mean(surprise[20:])))
    assert means[0] < means[1] < means[2] and means[0] < 2.5 and abs(means[2] - 6) < 2


def test_busy_handles_refuse_changes(abi: Abi, tiny: Path, profile: Callable[[str], Path], said: Said) -> None:
    profile("compute: false; token_delay_us: 2000")
    with Handle(abi, tiny) as handle:
        run = handle.run(IDS, asynchronous=True)
        assert handle.load_lora(tiny, "x") == -1 and handle.texts("load_prompt_cache", "/none") == -1
        assert handle.texts("set_chat_template", "", "", "") == -1 and handle.call("release_prompt_cache") == -1
        assert handle.texts("set_function_tools", "", "", "") == -1 and handle.clear() == -1
        assert sum("while a run of this handle is going on" in line for line in said()) == 6
        assert run.returned == 0 and handle.sizes()[0] >= 0


def test_the_performance_table(abi: Abi, tiny: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "1")
    with Handle(abi, tiny, ignore_eos_token=True) as handle:
        handle.run(IDS, new=5)
    lines = said()
    assert not any("prompt tokens" in line or "Model Path" in line for line in lines)
    (row,) = (line for line in lines if line.startswith("I rkllm:  Generate"))
    assert re.search(r" 4 +\d", row)  # the first is the prefill's
