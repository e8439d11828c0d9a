"""The rule book: whole, and its rules together say what they should."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from diagnosiskit import banner, cause_of, causes, malloc, refused
from runtimekit import ROOT

from rk_gemma_runtime.board.facts import GIB, Board, Memory, Npu
from rk_gemma_runtime.board.versions import version_key
from rk_gemma_runtime.diagnosis import CAUSES, diagnose
from rk_gemma_runtime.diagnosis.book import read_book, the_book
from rk_gemma_runtime.diagnosis.conditions import read_conditions
from rk_gemma_runtime.diagnosis.page import page

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN = "E RKNN: failed to open rknpu module, need to insmod rknpu dirver!"
MATMUL = "E rkllm: matmul(w8a8) run failed"
TOO_LOW = "W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7"
SMALL = {
    "causes": {"ok": {"title": "Ok", "text": "Ok."}},
    "lines": {"a": {"has": "some text"}},
    "rules": [
        {"id": "r", "cause": "ok", "confidence": 1, "any": "a", "explanation": "E.", "remedy": "R.", "source": "S"}
    ],
}


def test_every_cause_has_a_page_section_and_a_rule() -> None:
    book = the_book()
    assert tuple(cause.id for cause in book.causes) == CAUSES
    assert {rule.cause for rule in book.rules} == set(CAUSES)


def test_the_page_is_that_of_the_rules() -> None:
    assert (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8") == page(), (
        "run: python -m rk_gemma_runtime.diagnosis.page > docs/diagnosis.md"
    )


def test_every_line_is_used_and_found_by_its_example() -> None:
    book = the_book()
    used = {name for rule in book.rules for name in (*rule.any, *rule.all, *rule.none, *rule.shows)}
    assert {p.name for p in book.patterns} - used == set()
    assert len({p.name for p in book.patterns if p.regex.search(p.example)}) == len(book.patterns)


BREAKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "no line": lambda tree: tree["rules"][0].update(any="b"),
    "unknown cause": lambda tree: tree["rules"][0].update(cause="c"),
    "unknown keys": lambda tree: tree["rules"][0].update(extra=1),
    "confidence": lambda tree: tree["rules"][0].update(confidence=2),
    "asks for": lambda tree: tree["rules"][0].pop("any"),
    "first sentence": lambda tree: tree["rules"][0].update(explanation="It is {size}."),
    "full stop": lambda tree: tree["rules"][0].update(remedy=["One.", "two"]),
    "not a test": lambda tree: tree["rules"][0].update(when={"size": "about 3"}),
    "not match": lambda tree: tree["lines"].update(a={"has": "some text", "re": "other"}),
    "short": lambda tree: tree["lines"].update(a={"has": "abc"}),
    "lower case": lambda tree: tree["lines"].update(a={"has": "Some text"}),
    "not one of CAUSES": lambda tree: tree["causes"].update(other_cause={"title": "t", "text": "t"}),
    "line b": lambda tree: tree["lines"].update(b={"has": "text", "re": "("}),
    "twice": lambda tree: tree["rules"].append(tree["rules"][0]),
}


@pytest.mark.parametrize("words", BREAKS)
def test_a_broken_book_is_refused_in_one_line(words: str) -> None:
    read_book([SMALL])
    tree = copy.deepcopy(SMALL)
    BREAKS[words](tree)
    with pytest.raises(ValueError, match=words) as caught:
        read_book([tree])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tests", "value", "holds"),
    [
        ("< 0.9.7", "0.9.6", True), ("< 0.9.7", "v0.9.6", True), ("< 0.9.7", "0.9.10", False),
        ("< 0.9.7", None, False), ("!= 'page'", "0.9.6", True),
        ("< 1.2.1", "1.2.1b1", True), (">= 1.2.1b1", "1.2.1", True), ("unknown", None, True), ("known", None, False),
        (["unknown", "> 5"], None, True), (["unknown", "> 5"], 5, False), ("> 5", 6, True), (True, True, True),
        (False, True, False), (False, None, False), ("!= 'page'", None, True), ("!= 'page'", "PAGE", False),
        ("== ''", "", True), ("< other", "1.2.0", True), ("< other", "1.3.0", False), ("> 5", "word", False),
        ([11, 7], 7, True), ([11, 7], 6, False),
    ],
)  # fmt: skip
def test_conditions(tests: object, value: object, holds: bool) -> None:
    (condition,) = read_conditions("r", {"value": tests})
    assert condition.holds({"value": value, "other": "1.2.1"}.get) is holds


def test_versions_sort_as_releases_do() -> None:
    order = ["0.8.2", "0.9", "0.9.8", "1.2.1b1", "1.2.1b2", "1.2.1", "1.2.10", "1.3.0"]
    assert sorted(reversed(order), key=version_key) == order
    assert version_key("unknown") == ()


@pytest.mark.parametrize(
    ("driver", "size", "cause"),
    [
        ("0.9.6", 3 * GIB, "driver_too_old"),
        ("0.8.2", 3087138816, "driver_too_old"),
        ("0.9.8", 3 * GIB, "npu_malloc_iova_exhausted"),
        ("0.9.7", 3 * GIB, "npu_malloc_iova_exhausted"),
        ("0.9.6", 200 << 20, "npu_malloc_iova_exhausted"),
        ("0.9.6", 2 * GIB, "driver_too_old"),
        ("0.9.6", 2 * GIB + 1, "driver_too_old"),
    ],
)
def test_errno_14_is_judged_by_driver_and_size(driver: str, size: int, cause: str) -> None:
    lines = (refused(14), malloc(size))
    assert cause_of(banner(driver=driver), *lines) == cause
    assert cause_of(*lines, banner(driver=driver)) == cause  # stdout comes late from a pipe
    assert cause_of(*lines, known={"driver_version": driver}) == cause
    assert cause_of(*lines, board=Board(npu=Npu(driver=driver))) == cause


def test_errno_14_without_a_driver_names_both() -> None:
    found = diagnose([refused(14), malloc(3 * GIB)])
    assert set(causes(found)[:2]) == {"driver_too_old", "npu_malloc_iova_exhausted"}
    assert found.confidence <= 0.6
    assert found.facts.sizes == (3 * GIB,)
    assert [e.line for e in found.evidence] == [1, 2]


def test_the_warning_tells_the_driver_where_no_version_does() -> None:
    assert cause_of(TOO_LOW, refused(14), malloc(3 * GIB)) == "driver_too_old"
    assert cause_of(TOO_LOW, "rkllm init success") == "ok"
    assert cause_of(TOO_LOW) == "ok"


def test_a_kernel_that_packs_tighter_is_not_accused() -> None:
    board = Board(npu=Npu(driver="0.9.6", iova_alignment="page"))
    assert cause_of(refused(14), malloc(3 * GIB), board=board) != "driver_too_old"


@pytest.mark.parametrize(
    ("errno", "cause"), [(12, "npu_malloc_no_ram"), (24, "fd_limit"), (13, "permission"), (22, "iommu_disabled")]
)
def test_errno_decides(errno: int, cause: str) -> None:
    assert cause_of(banner(), refused(errno), malloc(3 * GIB)) == cause


def test_errno_22_with_an_iommu_is_no_missing_iommu() -> None:
    assert cause_of(refused(22), board=Board(npu=Npu(iommu=True))) != "iommu_disabled"
    assert diagnose([refused(22)], board=Board(npu=Npu(iommu=False))).confidence > 0.8


def test_a_buffer_larger_than_the_memory() -> None:
    board = Board(npu=Npu(driver="0.9.8"), memory=Memory(total=4 * GIB, available=GIB))
    found = diagnose([malloc(2 * GIB)], board=board)
    assert found.cause == "npu_malloc_no_ram"
    assert "1073741824 bytes (1 GiB) were free" in found.explanation


@pytest.mark.parametrize(
    ("npu", "cause"),
    [
        (Npu(driver="0.9.8", node="/dev/dri/renderD129", access=False), "permission"),
        (Npu(driver="0.9.8", node="/dev/dri/renderD129", access=True), "permission"),
        (Npu(driver="", node="", access=False), "driver_missing"),
        (Npu(driver="0.9.8", node="", access=False), "driver_missing"),
    ],
)
def test_a_known_board_tells_a_missing_driver_from_a_closed_one(npu: Npu, cause: str) -> None:
    found = diagnose([OPEN], board=Board(npu=npu))
    assert found.cause == cause
    assert {"permission", "driver_missing"} & set(causes(found)) == {cause}


def test_without_a_board_both_are_named() -> None:
    assert set(causes(diagnose([OPEN]))) == {"permission", "driver_missing"}


@pytest.mark.parametrize(
    ("driver", "cause"), [("0.8.2", "driver_too_old"), ("0.9.6", "driver_too_old"), ("0.9.8", "npu_run_failed")]
)
def test_a_failed_matrix_product(driver: str, cause: str) -> None:
    assert cause_of(banner(driver=driver), "rkllm init success", MATMUL) == cause


@pytest.mark.parametrize(
    ("signal", "cause"),
    [(4, "illegal_instruction"), (11, "segfault"), (7, "segfault"), (9, "oom_killed"), (6, "other")],
)
def test_a_signal_without_a_line(signal: int, cause: str) -> None:
    found = diagnose([banner()], signal=signal)
    assert (found.cause, found.evidence, found.facts.signal) == (cause, (), signal)


def test_a_symptom_comes_after_its_cause_wherever_it_stands() -> None:
    lines = ["Segmentation fault", banner(), refused(14), malloc(GIB), "free(): double free detected in tcache 2"]
    found = diagnose(lines, signal=11)
    assert causes(found) == ["npu_malloc_iova_exhausted", "segfault"]


def test_an_old_load_and_a_new_one_in_one_log() -> None:
    old = [banner(driver="0.9.6"), refused(14), malloc(3 * GIB)]
    new = [banner(driver="0.9.8"), "rkllm init success"]
    found = diagnose([*old, *new])
    assert (found.cause, found.facts.driver_version) == ("driver_too_old", "0.9.6")
    other = diagnose([banner(driver="0.9.6"), "rkllm init success", banner(driver="0.9.8"), *old[1:]])
    assert (other.cause, other.facts.driver_version) == ("npu_malloc_iova_exhausted", "0.9.8")


def test_facts_are_read_and_filled_up() -> None:
    toolkit = "I rkllm: rkllm-toolkit version: 1.2.1b1, max_context_limit: 4096, npu_core_num: 3, "
    lines = [banner(), toolkit + "target_platform: RK3588, model_dtype: W8A8_G128"]
    facts = diagnose(lines).facts
    assert (facts.runtime_version, facts.toolkit_version, facts.driver_version) == ("1.2.3", "1.2.1b1", "0.9.8")
    assert (facts.platform, facts.model_dtype, facts.max_context_limit, facts.sizes) == (
        "RK3588",
        "W8A8_G128",
        4096,
        (),
    )
    filled = diagnose(["x"], known={"runtime_version": "1.3.0"}, board=Board(npu=Npu(driver="0.9.6"))).facts
    assert (filled.runtime_version, filled.driver_version, filled.platform) == ("1.3.0", "0.9.6", None)


def test_values_stand_in_the_sentences() -> None:
    text = diagnose(["E rkllm: max_context[8192] must be less than the model's max_context_limit[4096]"]).explanation
    assert "8192" in text
    assert "4096" in text
    assert "libgomp.so.1" in diagnose(["libgomp.so.1: cannot open shared object file"]).explanation


def test_an_unknown_error_line_is_told_only_where_nothing_else_is() -> None:
    strange = "E rkllm: the moon is in the wrong house"
    found = diagnose([banner(), strange])
    assert (found.cause, found.confidence, found.evidence[0].text) == ("other", 0.3, strange)
    assert causes(diagnose([banner(), strange, refused(24)])) == ["fd_limit"]


def test_a_log_of_something_else() -> None:
    found = diagnose(["GET / 200", "GET /x 404"])
    assert (found.cause, found.confidence, found.evidence, found.others) == ("other", 0.0, (), ())
    assert "No line of the NPU stack" in found.explanation
    assert diagnose([]).confidence == 0.0
    assert diagnose(["open /usr/lib/librkllmrt.so"]).confidence == 0.1
