"""Types: mypy in its strict mode finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def test_types_are_strict_everywhere(tool: Callable[[Sequence[str]], str]) -> None:
    complaint = tool(["mypy", "--strict", "--no-error-summary", "harness", "suites", "tests"])

    assert not complaint, complaint
