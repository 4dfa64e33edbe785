"""House rules that no linter knows. Each rule is proven to find what it forbids."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

MOST_LINES = 500
# Where one person's machine or one site's network shows through. Pieces, so that this file
# does not find itself.
PRIVATE = re.compile(
    "|".join(
        (
            r"(?<![\w.])/wo" + r"rk/",
            r"/tmp/" + r"lab\b",
            r"/home/" + r"(?!user\b|\$)\w",
            r"/root/\.py" + r"env",
            r"/opt/" + r"(?:pypi|wheels)\b",
            r"\b(?:pypi|registry|mirror|proxy|artifact\w*|nexus)"
            + r"\.[\w.-]+\.(?:internal|local|corp)\b",
            r"\barti" + r"factory\b",
        )
    )
)


def sleeps(text: str) -> str:
    """Waits have a name, a condition and a deadline: `harness.wait`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=ast.Name(id="time" | "asyncio"), attr="sleep"):
                return f"line {node.lineno} sleeps"
            case ast.ImportFrom(module="time" | "asyncio", names=names):
                if any(name.name == "sleep" for name in names):
                    return f"line {node.lineno} imports sleep"
    return ""


def is_long(text: str) -> str:
    """A module has one job."""
    lines = text.count("\n")
    return f"{lines} lines, more than {MOST_LINES}" if lines > MOST_LINES else ""


def is_silent(text: str) -> str:
    """A module says in its docstring what it is for."""
    return "" if ast.get_docstring(ast.parse(text)) else "has no docstring"


def raises_assertion(text: str) -> str:
    """Only tests fail; the library raises a `HarnessError`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Raise(exc=ast.Name(id=name) | ast.Call(func=ast.Name(id=name))):
                if name == "AssertionError":
                    return f"line {node.lineno} raises AssertionError"
    return ""


def is_private(text: str) -> str:
    """The repository says nothing of the place where it was written."""
    found = PRIVATE.search(text)
    return f"names {found.group()!r}" if found else ""


def is_skipped(text: str) -> str:
    """A test that does not run proves nothing; at most ``skipif`` with its reason."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=ast.Name(id="pytest"), attr="skip" | "xfail"):
                return f"line {node.lineno} skips"
            case ast.Attribute(value=ast.Attribute(attr="mark"), attr="skip" | "xfail"):
                return f"line {node.lineno} skips"
    return ""


Rule = Callable[[str], str]
RULES: list[tuple[Rule, tuple[str, ...], str, str]] = [
    # rule, where (empty: everywhere), which files, an example that breaks it
    (sleeps, ("harness", "suites"), ".py", "import time\ntime.sleep(1)\n"),
    (is_long, ("harness", "suites"), ".py", "x = 1\n" * (MOST_LINES + 1)),
    (is_silent, ("harness", "suites", "tests"), ".py", "import os\n"),
    (raises_assertion, ("harness",), ".py", "raise AssertionError('no')\n"),
    (is_skipped, ("tests",), ".py", "import pytest\npytest.skip('later')\n"),
    (is_private, (), "", "see /wo" + "rk/notes.md\n"),
]


@pytest.mark.parametrize(
    ("rule", "where", "suffix"),
    [(r, w, s) for r, w, s, _ in RULES],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_house_rule_is_kept(
    rule: Rule, where: tuple[str, ...], suffix: str, root: Path, files: list[Path]
) -> None:
    broken = []
    for path in files:
        name = path.relative_to(root)
        if (where and name.parts[0] not in where) or not name.name.endswith(suffix):
            continue
        complaint = rule(path.read_bytes().decode(errors="replace"))
        broken += [f"{name}: {complaint}"] if complaint else []

    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("rule", "example"), [(r, e) for r, _, _, e in RULES], ids=lambda v: getattr(v, "__name__", "")
)
def test_house_rule_can_be_broken(rule: Rule, example: str) -> None:
    assert rule(example)
    assert not rule('"""A module that keeps the rule."""\n')


EXPLAINED = ("test_*.py", "conftest.py", "finding_*.py")
"""Modules of the suites whose assertions pytest rewrites, so that they say what was seen."""


def wordless(text: str) -> list[int]:
    """Return the lines of assertions that have no words of their own."""
    nodes = ast.walk(ast.parse(text))
    return [node.lineno for node in nodes if isinstance(node, ast.Assert) and node.msg is None]


def test_checks_that_pytest_does_not_explain_have_words(root: Path) -> None:
    modules = [
        path
        for path in (root / "suites").rglob("*.py")
        if not any(path.match(pattern) for pattern in EXPLAINED)
    ]
    silent = {path.name: lines for path in modules if (lines := wordless(path.read_text()))}

    assert wordless("assert a == b\nassert a, 'b'") == [1]
    assert modules and not silent


def test_licence_is_there_and_declared(root: Path) -> None:
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["license"]

    assert declared == "GPL-2.0-or-later"
    assert "Version 2, June 1991" in (root / "LICENSE").read_text()
