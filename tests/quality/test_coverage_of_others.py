"""The table of other projects' tests: every test of ours in it exists, every row says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = "docs/coverage-of-others.md"
LINK = re.compile(r"\[`([\w/.-]+\.py)::(\w+)`\]\(([^)]+)\)")
STATES = {"yes", "in part", "no"}


def rows(text: str) -> list[tuple[str, str, str]]:
    """Return the rows of all tables: theirs, state, which or why not."""
    cells = [line.strip("| ").split(" | ", 2) for line in text.splitlines() if line[:2] == "| "]
    return [(c[0], c[1], c[2] if len(c) > 2 else "") for c in cells if c[1] in STATES]


def problems(text: str, root: Path) -> list[str]:
    """Return what is wrong with the document *text* of the checkout *root*."""
    found = []
    for name, test, target in LINK.findall(text):
        path = root / "suites" / name
        if (root / "docs" / target).resolve() != path:
            found.append(f"{name}::{test} leads to {target}")
        elif not path.is_file() or not re.search(rf"^ *def {test}\(", path.read_text(), re.M):
            found.append(f"{name}::{test} does not exist")
    for theirs, state, why in rows(text):
        if state == "no" and not why:
            found.append(f"no reason: {theirs}")
        if state != "no" and not LINK.search(why):
            found.append(f"no test: {theirs}")
    return found


def test_every_test_in_the_table_exists_and_every_row_says_why(root: Path) -> None:
    text = (root / DOCUMENT).read_text()

    assert len(rows(text)) > 100
    assert not problems(text, root)


def test_the_head_counts_the_rows(root: Path) -> None:
    text = (root / DOCUMENT).read_text()
    states = [state for _, state, _ in rows(text)]
    numbers = [int(word) for word in re.findall(r"\d+", text.partition("\n## ")[0])[:4]]

    assert numbers == [
        states.count("yes"),
        len(states),
        states.count("in part"),
        states.count("no"),
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| a | yes | [`x/t.py::gone`](../suites/x/t.py) |", "x/t.py::gone does not exist"),
        ("| a | yes | [`x/t.py::there`](../suites/y.py) |", "x/t.py::there leads to"),
        ("| a | yes | of course |", "no test: a"),
        ("| a | no | |", "no reason: a"),
    ],
)
def test_a_wrong_row_is_noticed(tmp_path: Path, row: str, problem: str) -> None:
    (tmp_path / "suites/x").mkdir(parents=True)
    (tmp_path / "suites/x/t.py").write_text("def there(): pass\n")

    assert problems(row, tmp_path)[0].startswith(problem)
