"""Conditions of a rule on values: `size: "> 2147483648"`, `driver_old: unknown`, `signal: [9, 6]`.

A test is `unknown`, `known`, true, false, a number, or an operator with a number, a version, a 'quoted word' or the
name of another value. A list of tests holds if one of them does. An unknown value passes `unknown` and `!= 'word'`
only.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.board.versions import version_key

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SHAPE = re.compile(r"(<=|>=|==|!=|<|>)\s*(\S.*)")


@dataclass(frozen=True)
class Test:
    """One test of one value; `operator` may also be `known` and `unknown`."""

    operator: str
    operand: object = None


@dataclass(frozen=True)
class Condition:
    """A value's name and the tests of which one has to hold."""

    name: str
    tests: tuple[Test, ...]

    def holds(self, lookup: Callable[[str], object]) -> bool:
        """Whether the values that `lookup` knows satisfy it."""
        value = lookup(self.name)
        return any(_passes(test, value, lookup) for test in self.tests)


@dataclass(frozen=True)
class Name:
    """An operand that is another value."""

    name: str


def read_conditions(rule: str, tree: dict[str, Any]) -> tuple[Condition, ...]:
    """Read the conditions of a rule's `when`. Raises ValueError."""
    return tuple(
        Condition(name, tuple(_test(rule, t) for t in (tests if isinstance(tests, list) else [tests])))
        for name, tests in tree.items()
    )


def _test(rule: str, text: Any) -> Test:
    if isinstance(text, bool | int):
        return Test("==", text)
    if text in {"known", "unknown"}:
        return Test(text)
    shape = _SHAPE.fullmatch(str(text))
    if shape is None:
        raise ValueError(f"rule {rule}: {text!r} is not a test")
    return Test(shape[1], _operand(shape[2]))


def _operand(text: str) -> object:
    if text[0] == text[-1] == "'":
        return text[1:-1]
    if text.isdecimal():
        return int(text)
    return text if text[0].isdecimal() else Name(text)


def _passes(test: Test, value: object, lookup: Callable[[str], object]) -> bool:
    if test.operator in {"known", "unknown"}:
        return (value is None) == (test.operator == "unknown")
    operand = test.operand
    if isinstance(operand, Name):
        operand = lookup(operand.name)
        if operand is None:
            return False
    if value is None:
        return test.operator == "!=" and not isinstance(test.operand, Name)
    left, right = _comparable(value), _comparable(operand)
    if type(left) is not type(right):
        return test.operator == "!="
    return OPERATORS[test.operator](left, right)


def _comparable(value: object) -> object:
    """Turn numbers and truth into integers, versions into tuples, words into lower case."""
    if isinstance(value, bool | int):
        return int(value)
    text = str(value)
    return version_key(text) or text.lower()
