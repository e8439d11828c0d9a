"""docs/diagnosis.md out of the rule book: `python -m rk_gemma_runtime.diagnosis.page > docs/diagnosis.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rk_gemma_runtime.diagnosis.book import Book, Rule, the_book
from rk_gemma_runtime.diagnosis.conditions import Condition, Name, Test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rk_gemma_runtime.diagnosis.book import Cause

HEAD = """\
# Diagnosis: why the NPU refuses

<!-- `python -m rk_gemma_runtime.diagnosis.page` made this of the rule book (diagnosis/rules): not for editing. -->

`rk-gemma explain FILE` (or `-`, `--journal`, `--dmesg`) reads a log of any kind and says which of these causes
it shows, how sure that is, which lines say so and what to do; `--json` for programs.
`rk_gemma_runtime.diagnosis` does the same in Python, and takes what is known of the board. Several causes may
show: the most likely comes first, and a crash that only follows from another failure comes after it.

A rule holds if one of its lines ([below](#lines)) is there, all that stand behind "with" are, none behind
"without" is, and the values meet its conditions. A value is the latest one stated at or before the line, since a log
may hold several loads. A sentence whose {values} are not known is left out.
"""


def page() -> str:
    """Write the whole page."""
    book = the_book()
    parts = [HEAD, "\n".join(_contents(book)) + "\n"]
    parts += ["\n".join(_section(cause, book)) + "\n" for cause in book.causes]
    return "\n".join([*parts, "\n".join(_lines(book)) + "\n"])


def _contents(book: Book) -> Iterator[str]:
    yield "| cause | in a word |"
    yield "|---|---|"
    for cause in book.causes:
        yield f"| [{cause.id}](#{cause.id}) | {cause.title} |"


def _section(cause: Cause, book: Book) -> Iterator[str]:
    yield f"## {cause.id}"
    yield ""
    yield f"**{cause.title}.** {cause.text}"
    for rule in sorted((r for r in book.rules if r.cause == cause.id), key=lambda rule: -rule.confidence):
        yield ""
        yield f"- **{rule.id}**, {rule.confidence:.0%}: {' '.join(rule.explanation)}"
        yield f"  *Do:* {' '.join(rule.remedy)}"
        yield f"  *If:* {'; '.join(_asked(rule))}. *Source:* {rule.source}."


def _asked(rule: Rule) -> Iterator[str]:
    for label, names in (("", rule.any), ("with ", rule.all), ("without ", rule.none)):
        if names:
            yield f"{label}{', '.join(names)}"
    if rule.when:
        yield "; ".join(map(_condition, rule.when))


def _lines(book: Book) -> Iterator[str]:
    yield "## Lines"
    yield ""
    yield "| name | such as |"
    yield "|---|---|"
    for pattern in sorted(book.patterns, key=lambda pattern: pattern.name):
        yield f"| {pattern.name} | {_code(pattern.example)} |"


def _code(text: str) -> str:
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _condition(condition: Condition) -> str:
    return f"{condition.name} {' or '.join(_test(test) for test in condition.tests)}"


def _test(test: Test) -> str:
    if test.operator in {"known", "unknown"}:
        return test.operator
    operand = test.operand
    if isinstance(operand, Name):
        return f"{test.operator} {operand.name}"
    if isinstance(operand, bool):
        return "is true" if operand else "is false"
    return f"{test.operator} {operand!r}" if operand == "" else f"{test.operator} {operand}"


if __name__ == "__main__":
    print(page(), end="")
