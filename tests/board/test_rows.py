"""Rows in place of tokens: embeddings, images, and a model whose embedding the application holds."""

from __future__ import annotations

import ctypes as C
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import LAYOUTS
from reference import Reference, read
from simlib import GET_HIDDEN, GET_LOGITS, Abi, Handle
from simrequest import Given, Media
from simwriter import Checkpoint, write, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.board

IDS = [2, 10, 20, 30, 40]
RNG = np.random.default_rng(21)
ROWS = RNG.normal(0, 1, (9, 64)).astype(np.float32)
MANY = ("1.3.0", "1.3.1")  # layouts with videos


@pytest.fixture
def fp16(model: Callable[[str, str], Path]) -> Path:
    return model("tiny-gemma2", "fp16")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_embedding_rows_are_the_tokens(layout: str, abis: dict[str, Abi], fp16: Path) -> None:
    reference = Reference(read(fp16))
    rows = np.stack([reference.embedded(token) for token in IDS])
    with Handle(abis[layout], fp16, max_new_tokens=6) as handle:
        assert handle.run(Given(rows=rows)).tokens == handle.run(IDS).tokens
        hidden = handle.run(Given(rows=ROWS), mode=GET_HIDDEN).values
        assert hidden is not None
        assert np.abs(hidden - Reference(read(fp16)).run(list(ROWS))[1]).max() < 2e-4
        assert handle.run(Given(rows=ROWS[:0])).returned == -1
        assert handle.run(Given(rows=np.zeros((128, 64), np.float32))).returned == -1


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout not in ("1.1.0", "1.2.0", "1.2.1b1")])
def test_equal_rows_are_reused(layout: str, abis: dict[str, Abi], fp16: Path) -> None:
    with Handle(abis[layout], fp16, max_new_tokens=4) as handle:
        first = handle.run(Given(rows=ROWS))
        again = handle.run(Given(rows=ROWS))
        assert (first.perf["prefill_tokens"], again.perf["prefill_tokens"]) == (9, 1)
        assert first.tokens == again.tokens
        other = ROWS.copy()
        other[4, 3] += 1e-3
        assert handle.run(Given(rows=other)).perf["prefill_tokens"] == 5


@pytest.mark.parametrize("layout", ["1.2.0", "1.2.1b1"])
def test_rows_were_once_computed_again(
    layout: str, abis: dict[str, Abi], fp16: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "2")
    with Handle(abis[layout], fp16, max_new_tokens=4) as handle:
        handle.run(Given(rows=ROWS))
        handle.run(Given(rows=ROWS))
    assert said().count("I rkllm: kv cache matches 0 / 9 tokens of prompt") == 2


def image_run(abi: Abi, path: Path, text: str, media: dict[str, Media], **params: Any) -> tuple[int, Any]:
    first, own = next(iter(media.values())), abi.table["layout"] in MANY
    texts = {} if own else {"img_start": first.start, "img_end": first.end, "img_content": ""}
    with Handle(abi, path, texts=texts, **params) as handle:
        if "rkllm_set_chat_template" in abi.table["functions"]:
            handle.texts("set_chat_template", "", "", "")
        run = handle.run(Given(text=text, media=media), mode=GET_HIDDEN)
        return run.returned, run.values


def expected_hidden(path: Path, parts: list[str | NDArray[np.float32]]) -> NDArray[np.float32]:
    from test_text_input import SP

    entries: list[Any] = [2]
    for part in parts:
        entries += SP.encode(part) if isinstance(part, str) else list(part)
    return Reference(read(path)).run(entries)[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images(layout: str, abis: dict[str, Abi], demo_float: Path) -> None:
    """Each tag becomes start, rows, end. Releases before 1.2.1b1 know one image."""
    one = layout in ("1.1.0", "1.2.0")
    rows = RNG.normal(0, 1, (1 if one else 2, 3, 32)).astype(np.float32)
    text = "See <image> now" if one else "See <image> and <image>"
    parts = ["See [", rows[0], "] now"] if one else ["See [", rows[0], "] and [", rows[1], "]"]
    returned, values = image_run(abis[layout], demo_float, text, {"image": Media(rows, "[", "]")})
    assert returned == 0
    assert np.abs(values - expected_hidden(demo_float, parts)).max() < 2e-4


@pytest.mark.parametrize(("layout", "kind"), [(v, "video") for v in MANY] + [("1.3.1", "audio")])
def test_videos_and_sounds(layout: str, kind: str, abis: dict[str, Abi], demo_float: Path) -> None:
    rows, picture = (RNG.normal(0, 1, (1, n, 32)).astype(np.float32) for n in (4, 2))
    media = {kind: Media(rows, "{", "}"), "image": Media(picture, "[", "]")}
    returned, values = image_run(abis[layout], demo_float, f"<{kind}> <image>", media)
    assert returned == 0
    assert np.abs(values - expected_hidden(demo_float, ["{", rows[0], "} [", picture[0], "]"])).max() < 2e-4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("text", "media", "line"), [
    ("no tag", Media(ROWS[None]), "multimodal input must contain the <image> tag, for plain text input, "
                                  "please use prompt_input"),
    ("<image>", Media(ROWS[None], shape=(1, 0)), "The n_image{} of multimodal_input is not set"),
    ("<image>", Media(None, shape=(1, 3)), "The image_embed of multimodal_input is empty"),
    ("<image><image>", Media(ROWS[None, :2]), "multimodal input has more <image> tags than items (1)"),
])  # fmt: skip
def test_images_refused(
    layout: str,
    text: str,
    media: Media,
    line: str,
    abis: dict[str, Abi],
    demo_words: Path,
    said: Callable[[], list[str]],
) -> None:
    assert image_run(abis[layout], demo_words, text, {"image": media})[0] == -1
    count = "_token" if layout in ("1.1.0", "1.2.0") else "/n_image_token"
    assert "E rkllm: " + line.format(count) in said()


def test_more_images_than_tags(abi: Abi, demo_words: Path, said: Callable[[], list[str]]) -> None:
    rows = np.zeros((2, 3, 32), np.float32)
    assert image_run(abi, demo_words, "<image>", {"image": Media(rows)})[0] == -1
    assert "E rkllm: multimodal input has 1 <image> tags for 2 items" in said()


@pytest.fixture
def without_embed(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> Path:
    base = checkpoints["tiny-gemma2"]
    weights = {name: w for name, w in base.weights.items() if name != "embed"}
    return write_checkpoint(tmp_path / "bare.sim", Checkpoint(base.keys, weights), "fp16")


@pytest.mark.parametrize("layout", MANY)
def test_embed_callback(
    layout: str, abis: dict[str, Abi], fp16: Path, without_embed: Path, checkpoints: dict[str, Checkpoint],
    said: Callable[[], list[str]],
) -> None:  # fmt: skip
    abi, calls, answer = abis[layout], [], [0]
    table = checkpoints["tiny-gemma2"].weights["embed"].astype(np.float32)

    def rows(userdata: int, tokens: int, count: int, into: int, length: int) -> int:
        ids = list((C.c_int32 * count).from_address(tokens))
        calls.append((userdata, count, length))
        (C.c_float * (count * 64)).from_address(into)[:] = table[ids].ravel().tolist()
        return answer[0]

    answers = {"embed_callback": abi.callback("LLMGetEmbedCallback")(rows), "embed_userdata": 5}
    with Handle(abi, fp16, answers=answers) as whole, Handle(abi, without_embed, answers=answers) as bare:
        assert bare.run(IDS, mode=GET_LOGITS).values.tobytes() == whole.run(IDS, mode=GET_LOGITS).values.tobytes()  # type: ignore[union-attr]
        assert calls == [(5, 5, 5 * 64 * 4)]
        assert bare.run(IDS, new=5).tokens == whole.run(IDS, new=5).tokens
        answer[0] = -1
        assert bare.run([3], new=1).returned == -1
        assert "E rkllm: embed_callback failed for 1 tokens" in said()
    assert Handle(abi, without_embed).returned == -1
    assert "E rkllm: tensor embed not found" in said()


def test_a_file_is_a_file(tmp_path: Path, abi: Abi, said: Callable[[], list[str]]) -> None:
    write(tmp_path / "x.sim", {"kind": "lora"}, {"t": np.zeros(4, np.float32)})
    assert Handle(abi, tmp_path / "x.sim").returned == -1
    assert "E rkllm: the model architecture lora is not supported by rkllm" in said()
