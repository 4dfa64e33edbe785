"""A negative control runs the check of its rule: else it shows that another check can fail."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMON = frozenset({"all", "any", "dict", "len", "list", "replace", "set", "sorted", "str"})
"""Calls that say nothing of what is checked."""


def marked_in(text: str) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield the mark, its rules and what is called, of the tests of a module.

    Of a control the calls inside of ``must_fail()`` count. Rules that are no literals, as where
    a table makes the marks, are not seen.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for mark, parts in (("rule", [node]), ("negative_control", must_fail_in(node))):
                if rules := cited(node, mark):
                    yield mark, rules, called(parts)


def must_fail_in(test: ast.FunctionDef) -> list[ast.AST]:
    """Return what is inside of ``with must_fail():``."""
    found = [node for node in ast.walk(test) if isinstance(node, ast.With)]
    return [
        part
        for node in found
        if any("must_fail()" in ast.unparse(item) for item in node.items)
        for part in node.body
    ]


def cited(test: ast.FunctionDef, mark: str) -> set[str]:
    """Return the rules that a mark names, on the test or on its parameters."""
    return {
        str(argument.value)
        for decorator in test.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == mark
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }


def called(parts: Iterable[ast.AST]) -> set[str]:
    """Return the names of the functions and methods that are called."""
    calls = [node.func for part in parts for node in ast.walk(part) if isinstance(node, ast.Call)]
    names = {func.id for func in calls if isinstance(func, ast.Name)}
    return (names | {func.attr for func in calls if isinstance(func, ast.Attribute)}) - COMMON


def unrelated(texts: Iterable[str]) -> list[str]:
    """Return the rules none of whose controls runs a check that their tests run."""
    checks: dict[str, dict[str, set[str]]] = {"rule": {}, "negative_control": {}}
    for text in texts:
        for mark, rules, calls in marked_in(text):
            for rule in rules:
                checks[mark].setdefault(rule, set()).update(calls)
    tests, controls = checks["rule"], checks["negative_control"]
    return sorted(rule for rule in tests.keys() & controls if not tests[rule] & controls[rule])


def test_a_control_of_another_check_is_found() -> None:
    text = """
@pytest.mark.rule("A-1")
def test_a(): check_a()
@pytest.mark.negative_control("A-1")
def test_b():
    check_a()
    with must_fail():
        check_b()
"""
    assert unrelated([text]) == ["A-1"]
    assert unrelated([text.replace("check_b", "check_a")]) == []


def test_the_controls_of_each_rule_run_its_check() -> None:
    texts = [path.read_text() for path in sorted((ROOT / "suites").rglob("test_*.py"))]

    assert unrelated(texts) == []
