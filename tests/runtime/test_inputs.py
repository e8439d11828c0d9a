"""The kinds of input and the calls around them, in every layout: what arrives in the library is what was meant, and
what a release lacks is refused before it is called."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from runtimekit import ROOT

from rk_gemma_runtime.chat import Tokenizer
from rk_gemma_runtime.errors import NpuError, UnsupportedCall, UsageError
from rk_gemma_runtime.librkllm.abi import LAYOUTS
from rk_gemma_runtime.librkllm.library import load
from rk_gemma_runtime.librkllm.session import (
    GREEDY,
    CallbackReturn,
    Embeddings,
    InitOptions,
    Media,
    MultiModal,
    Prompt,
    RunOptions,
    Session,
    Supplied,
    Tokens,
)

np = pytest.importorskip("numpy")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rk_gemma_runtime.librkllm.library import Library
    from rk_gemma_runtime.librkllm.session import Input

pytestmark = pytest.mark.board
ORDER = list(LAYOUTS)
QUESTION = "What does errno 14 mean?"


@pytest.fixture(scope="module")
def libraries(simulator: Callable[[str], Path]) -> dict[str, Library]:
    return {name: load(simulator(name)) for name in LAYOUTS}


@pytest.fixture(params=LAYOUTS)
def library(request: pytest.FixtureRequest, libraries: dict[str, Library]) -> Library:
    return libraries[request.param]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer.open(ROOT / "demo" / "checkpoint" / "tokenizer.model")


def at_least(library: Library, first: str) -> bool:
    return ORDER.index(library.layout.name) >= ORDER.index(first)


@contextmanager
def opened(library: Library, bundle: Path, **options: Any) -> Iterator[Session]:
    chosen = InitOptions(**{"context": 256, "sampling": GREEDY, "max_new_tokens": 10, **options})
    session = Session(library, bundle / "model.sim", chosen)
    try:
        yield session
    finally:
        session.close()


def answer(session: Session, item: Input, options: RunOptions | None = None) -> list[int]:
    got: list[int] = []
    session.run(item, lambda token, text: got.append(token), options)
    return got


def refused(library: Library, first: str) -> Any:
    return pytest.raises(UnsupportedCall, match=rf"librkllmrt {library.version} .*{first}")


def test_text_is_templated_by_the_library_from_1_2_0_on(
    library: Library, demo_bundle: Path, words: Tokenizer
) -> None:
    turn = f"<start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n"
    templated = [words.bos, *words._sp.encode(turn)]
    with opened(library, demo_bundle) as session:
        whole = answer(session, Tokens(templated))
        if at_least(library, "1.2.0"):
            assert answer(session, Prompt(QUESTION)) == whole
            session.set_chat_template()
        bare = answer(session, Tokens([words.bos, *words._sp.encode(QUESTION)]))
        assert answer(session, Prompt(QUESTION)) == bare != whole
        if at_least(library, "1.2.0"):
            session.set_chat_template("", "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n")
            assert answer(session, Prompt(QUESTION)) == whole


def table_of(bundle: Path) -> Any:
    """What enters the first layer for each id."""
    from simreader import read_container

    file = read_container(bundle / "model.sim")
    return file.tensors["embed"].astype(np.float32) * np.float32(float(file.keys["embed_scale"]))


def test_embeddings_of_tokens_answer_as_the_tokens(
    library: Library, tiny_bundle: Path, golden: dict[str, Any]
) -> None:
    prompt = golden["tiny-gemma2"]["prompt_6"].tolist()
    rows = table_of(tiny_bundle)[prompt]
    with opened(library, tiny_bundle, context=128) as session:
        assert answer(session, Embeddings(rows)) == golden["tiny-gemma2"]["greedy_6"].tolist()[:10]
        if at_least(library, "1.2.0"):
            np.testing.assert_allclose(session.logits(Embeddings(rows)), golden["tiny-gemma2"]["logits_6"], atol=5e-3)
        with pytest.raises(UsageError, match="dimensions"):
            session.run(Embeddings(rows[0]), lambda token, text: None)


def test_an_image_stands_where_its_tag_is(library: Library, demo_bundle: Path, words: Tokenizer) -> None:
    table = table_of(demo_bundle)
    picture = table[words._sp.encode("driver memory")][None]
    marks = ("<start_of_turn>", "<end_of_turn>")
    first, start, end, last = (words._sp.encode(t) for t in ("What ", *marks, " is"))
    rows = np.concatenate([table[[words.bos, *first, *start]], picture[0], table[[*end, *last]]])
    tags = {} if at_least(library, "1.3.0") else {"image_tags": (*marks, "")}
    image = Media(picture, *marks, width=2, height=1) if at_least(library, "1.3.0") else Media(picture)
    with opened(library, demo_bundle, **tags) as session:
        if at_least(library, "1.2.0"):
            session.set_chat_template()
        given = answer(session, MultiModal("What <image> is", image=image))
        assert given == answer(session, Embeddings(rows))
        with pytest.raises(NpuError):
            session.run(MultiModal("no tag", image=image), lambda token, text: None)


@pytest.mark.parametrize(("kind", "first"), [("video", "1.3.0"), ("audio", "1.3.1")])
def test_media_of_later_releases(kind: str, first: str, library: Library, demo_bundle: Path) -> None:
    shape = (1, 2, 3, 96) if kind == "video" else (1, 3, 96)
    item = MultiModal(f"<{kind}>", **{kind: Media(np.zeros(shape, np.float32))})
    with opened(library, demo_bundle) as session:
        if not at_least(library, first):
            with refused(library, first):
                session.run(item, lambda token, text: None)


# What each call needs; the session is opened plainly.
CALLS: dict[str, tuple[str, Callable[[Session], object]]] = {
    "cache_sizes": ("1.2.1", lambda s: s.cache_sizes()),
    "chat_template": ("1.2.0", lambda s: s.set_chat_template("s", "a", "b")),
    "function_tools": ("1.2.1", lambda s: s.set_function_tools("s", "[]", "r")),
    "role": ("1.2.1", lambda s: answer(s, Prompt("x", role="tool"))),
    "thinking": ("1.2.1", lambda s: answer(s, Prompt("x", thinking=True))),
    "keep_history": ("1.2.0", lambda s: answer(s, Tokens([5]), RunOptions(keep_history=True))),
    "sampling per run": ("1.3.0", lambda s: answer(s, Tokens([5]), RunOptions(sampling=GREEDY))),
    "max_new_tokens": ("1.3.0", lambda s: answer(s, Tokens([5]), RunOptions(max_new_tokens=3))),
    "logits": ("1.2.0", lambda s: s.logits(Tokens([5]))),
}  # fmt: skip
OPTIONS = {
    "n_keep": ("1.2.0", {"n_keep": 4}), "ignore_eos": ("1.3.0", {"ignore_eos": True}),
    "embed_flash": ("1.2.0", {"embed_flash": False}), "batch": ("1.2.1", {"batch": 2}),
    "cross_attention": ("1.2.1", {"cross_attention": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_works_or_is_refused_by_name(name: str, library: Library, demo_bundle: Path) -> None:
    first, call = CALLS[name]
    with opened(library, demo_bundle) as session:
        if at_least(library, first):
            call(session)
        else:
            with refused(library, first):
                call(session)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_works_or_is_refused_by_name(name: str, library: Library, demo_bundle: Path) -> None:
    first, options = OPTIONS[name]
    if at_least(library, first):
        with opened(library, demo_bundle, **options):
            return
    with refused(library, first), opened(library, demo_bundle, **options):
        pass


def test_image_tags_left_init_with_1_3_0(library: Library, demo_bundle: Path) -> None:
    if at_least(library, "1.3.0"):
        with pytest.raises(UnsupportedCall, match="with the input"):
            opened(library, demo_bundle, image_tags=("a", "b", "c")).__enter__()


def test_cross_attention_reaches_the_library(library: Library, demo_bundle: Path, capfd: Any) -> None:
    """Gemma has none, so the library refuses; its line quotes what it was given."""
    arrays = [np.zeros((3, 4), np.float32)] * 3 + [np.arange(7, dtype=np.int32)]
    if not at_least(library, "1.2.1"):
        with opened(library, demo_bundle) as session, refused(library, "1.2.1"):
            session.set_cross_attention(*arrays)
        return
    with opened(library, demo_bundle, cross_attention=True) as session:
        with pytest.raises(NpuError, match="rkllm_set_cross_attn_params failed"):
            session.set_cross_attention(*arrays)
    assert "7" in next(line for line in capfd.readouterr().err.splitlines() if "cross" in line)


def test_a_range_of_the_cache_can_be_cut_out_after_a_pause(
    library: Library, demo_bundle: Path, words: Tokenizer
) -> None:
    """Keys behind the hole move; what is left answers as if the hole had never been there, but for what it has
    seen."""
    if not at_least(library, "1.2.1"):
        with opened(library, demo_bundle) as session, refused(library, "1.2.1"):
            session.clear_range((0, 1))
        return
    turn = f"<start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n"
    prompt = [words.bos, *words._sp.encode(turn)]
    with opened(library, demo_bundle) as session:
        with pytest.raises(NpuError):
            session.clear_range((1, 3))  # nothing is paused
        session.run(Tokens(prompt), lambda token, text: CallbackReturn.PAUSE)
        (size,) = session.cache_sizes()
        session.clear_range((1, 3))
        assert session.cache_sizes() == (size - 2,)
        with pytest.raises(UsageError, match="2 ranges"):
            session.clear_range((1, 2), (1, 2))
        assert answer(session, Tokens(words._sp.encode(" and")))


def test_a_full_context_is_shifted(library: Library, tiny_bundle: Path) -> None:
    options = {"n_keep": 4} if at_least(library, "1.2.0") else {}
    with opened(library, tiny_bundle, context=32, max_new_tokens=60, **options) as session:
        assert len(answer(session, Tokens([2, *range(200, 216)]))) == 60


def test_a_file_without_tokenizer_asks_for_ids(library: Library, tiny_bundle: Path, golden: dict[str, Any]) -> None:
    prompt = golden["tiny-gemma2"]["prompt_6"].tolist()
    asked: list[bytes] = []

    def tokenize(text: bytes) -> list[int]:
        asked.append(text)
        return prompt[1:]

    if not at_least(library, "1.3.0"):
        with refused(library, "1.3.0"):
            Session(library, tiny_bundle / "model.sim", InitOptions(128), Supplied(tokenize))
        return
    session = Session(
        library, tiny_bundle / "model.sim", InitOptions(128, GREEDY, max_new_tokens=10), Supplied(tokenize)
    )
    session.set_chat_template()
    assert answer(session, Prompt("what is it?")) == golden["tiny-gemma2"]["greedy_6"].tolist()[:10]
    assert b"what is it?" in asked[0]
    session.close()


def test_a_file_without_embedding_asks_for_rows(
    library: Library, tiny_bundle: Path, golden: dict[str, Any], tmp_path: Path
) -> None:
    if not at_least(library, "1.3.0"):
        pytest.skip("the test above has the refusal")
    bare = tmp_path / "model.sim"
    bare.write_bytes((tiny_bundle / "model.sim").read_bytes().replace(b"tensor embed ", b"tensor other ", 1))
    from simreader import read_container

    table = read_container(tiny_bundle / "model.sim").tensors["embed"].astype(np.float32)
    options = InitOptions(128, GREEDY, max_new_tokens=10)
    with pytest.raises(NpuError):
        Session(library, bare, options)
    session = Session(library, bare, options, Supplied(embed=lambda ids: table[list(ids)]))
    prompt = Tokens(golden["tiny-gemma2"]["prompt_6"].tolist())
    assert answer(session, prompt) == golden["tiny-gemma2"]["greedy_6"].tolist()[:10]
    session.close()
    broken = Session(library, bare, options, Supplied(embed=lambda ids: table[:1]))
    with pytest.raises(ValueError, match="rows of shape"):
        answer(broken, prompt)
    broken.close()
