"""Text input: the library's template and tokenizer, release by release."""

from __future__ import annotations

import ctypes as C
from typing import TYPE_CHECKING, Any

import pytest
from conftest import DEMO_TOKENIZER, LAYOUTS
from sentencepiece import SentencePieceProcessor
from simlib import DISTINCT, Abi, Handle
from simrequest import Given
from simwriter import Checkpoint, printed, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.board

START, END, BOS = "<start_of_turn>", "<end_of_turn>", 2
TEMPLATED = [layout for layout in LAYOUTS if layout != "1.1.0"]
TOOLS = [layout for layout in LAYOUTS if layout in ("1.2.1", "1.3.0", "1.3.1")]
SP = SentencePieceProcessor(model_proto=DEMO_TOKENIZER.read_bytes())


def spelled(text: str) -> list[int]:
    """The ids of a text that may begin with <bos>."""
    bos = text.startswith("<bos>")
    ids: list[int] = SP.encode(text.removeprefix("<bos>"))
    return [BOS] * bos + ids


def turn(text: str) -> list[int]:
    return spelled(f"<bos>{START}user\n{text}{END}\n{START}model\n")


@pytest.fixture
def ask(
    abis: dict[str, Abi], demo_words: Path, prompt_ids: Callable[..., list[int]]
) -> Callable[..., tuple[Handle, Callable[..., list[int]]]]:
    """ask(layout) is a handle on the demo's words and the ids of what it is given."""

    def make(layout: str, **params: Any) -> tuple[Handle, Callable[..., list[int]]]:
        handle = Handle(abis[layout], demo_words, max_new_tokens=2, max_context_len=512, **params)

        def ids(text: str, role: str | None = None, **options: Any) -> list[int]:
            return prompt_ids(handle, Given(text=text, role=role), **options)

        return handle, ids

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_is_templated_from_1_2_0_on(layout: str, ask: Any, said: Callable[[], list[str]]) -> None:
    handle, ids = ask(layout)
    with handle:
        expected = [BOS, *SP.encode("How many?")] if layout == "1.1.0" else turn("How many?")
        assert ids("How many?") == expected
        from_text = handle.run(Given(text="How many?")).tokens
        assert from_text == handle.run(expected).tokens and len(from_text) == 2
        said()
        handle.run(Given(text="x"))
        shown = [line for line in said() if "prompt text:" in line]
        assert shown == [f'I rkllm: prompt text: "{"x" if layout == "1.1.0" else f"<bos>{START}user"}'
                         + ('"' if layout == "1.1.0" else "")]  # fmt: skip


@pytest.mark.parametrize("layout", TEMPLATED)
def test_ones_own_template(layout: str, ask: Any, said: Callable[[], list[str]]) -> None:
    handle, ids = ask(layout)
    with handle:
        ids("one")
        assert handle.texts("set_chat_template", "Be brief.\n", "Q: ", "\nA:") == 0
        assert [line for line in said() if "rkllm: " in line][-6:] == [
            "I rkllm: reset chat template:", "I rkllm: system_prompt: Be brief.\\n", "I rkllm: prompt_prefix: Q: ",
            "I rkllm: prompt_postfix: \\nA:", "I rkllm: All kv caches have been deleted!",
            "W rkllm: Calling rkllm_set_chat_template will disable the internal automatic chat template parsing, "
            "including enable_thinking. Make sure your custom prompt is complete and valid.",
        ]  # fmt: skip
        if "rkllm_get_kv_cache_size" in handle.abi.table["functions"]:
            assert handle.sizes() == [0]
        assert ids("How many?") == [BOS, *SP.encode("Be brief.\nQ: How many?\nA:")]
        handle.texts("set_chat_template", "", "", "")
        assert ids("<start_of_turn>") == [BOS, 106]
        handle.texts("set_chat_template", "<bos>", "", "")
        assert ids("a") == [BOS, *SP.encode("a")]  # one <bos>, whoever writes it


@pytest.mark.parametrize("layout", TEMPLATED)
def test_a_conversation_goes_on(layout: str, ask: Any) -> None:
    handle, ids = ask(layout)
    with handle:
        assert ids("one", keep=1) == turn("one")
        assert ids("two", keep=1) == spelled(f"{END}\n{START}user\ntwo{END}\n{START}model\n")
        handle.texts("set_chat_template", "S ", "Q ", " A")
        assert ids("one", keep=1) == [BOS, *SP.encode("S Q one A")]
        assert ids("two", keep=1) == SP.encode("Q two A")


@pytest.mark.parametrize("layout", TOOLS)
def test_function_tools(layout: str, ask: Any, said: Callable[[], list[str]]) -> None:
    handle, ids = ask(layout)
    with handle:
        assert handle.texts("set_function_tools", "Call these.", '[{"name": "f"}]', "tool_response") == 0
        asked = spelled(f'<bos>{START}user\nCall these.\n[{{"name": "f"}}]\n\nAdd.{END}\n{START}model\n')
        assert ids("Add.", keep=1) == asked
        response = f'{END}\n{START}user\n<tool_response>\n{{"f": 3}}\n</tool_response>{END}\n{START}model\n'
        assert ids('{"f": 3}', role="tool", keep=1) == spelled(response)
        assert handle.clear(keep_system=True) == 0
        system = handle.sizes()[0]
        assert spelled(f'<bos>{START}user\nCall these.\n[{{"name": "f"}}]\n\n')[:system] == asked[:system]
        assert 20 < system < len(asked)
        handle.texts("set_chat_template", "", "", "")
        said()
        assert handle.texts("set_function_tools", "a", "b", "c") == -1
        assert "E rkllm: the chat template is empty, function tools cannot be set" in said()


def test_a_file_without_a_tokenizer(abis: dict[str, Abi], tiny: Path, said: Callable[[], list[str]]) -> None:
    for layout in LAYOUTS:
        with Handle(abis[layout], tiny) as handle:
            assert handle.run(Given(text="hi")).returned == -1
            assert any("the model has no tokenizer" in line for line in said())


@pytest.mark.parametrize("layout", ["1.3.0", "1.3.1"])
def test_tokenizer_callback(layout: str, abis: dict[str, Abi], tiny: Path, prompt_ids: Callable[..., Any]) -> None:
    abi, seen, counts = abis[layout], [], [3]

    def tokenize(userdata: int, text: int, length: int, into: int, most: int) -> int:
        seen.append((userdata, C.string_at(text, length), most))
        (C.c_int32 * 3).from_address(into)[:] = [7, 8, 9]
        return counts[0]

    callback = abi.callback("LLMTokenizerCallback")(tokenize)
    answers = {"tokenizer_callback": callback, "tokenizer_userdata": 77}
    with Handle(abi, tiny, answers=answers, max_new_tokens=1) as handle:
        assert prompt_ids(handle, Given(text="hi")) == [BOS, 7, 8, 9]
        assert seen == [(77, f"<bos>{START}user\nhi{END}\n{START}model\n".encode(), 128)]
        for counts[0] in (-1, 129):
            assert handle.run(Given(text="hi")).returned == -1


@pytest.mark.parametrize("shown", [False, True])
def test_special_tokens_in_the_text(
    shown: bool, abi: Abi, tiny: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """The EOS that ends a run, and a control piece on the way, print nothing unless they are asked to."""
    with Handle(abi, tiny) as handle:
        plain = handle.run([2, 10, 20, 30], new=8, sampling=DISTINCT).tokens
    control, eos = plain[:2]
    base = checkpoints["tiny-gemma2"]
    words = [("<control>", 0.0, 3) if i == control else ("<stop>", 0.0, 3) if i == eos else (f"w{i}", 0.0, 1)
             for i in range(512)]  # fmt: skip
    named = Checkpoint(base.keys, base.weights, printed(words), {"eos": str(eos)}, words)
    with Handle(abi, write_checkpoint(tmp_path / "m.sim", named), skip_special_token=not shown) as handle:
        run = handle.run([2, 10, 20, 30], new=8, sampling=DISTINCT)
    assert run.ids == [control, eos, eos] and run.texts[-1] is None
    assert run.text == ("<control>" + "<stop>" if shown else "")
