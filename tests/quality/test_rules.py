"""What every rule of the catalogue has: a state, and a check that is known to be able to fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    """What ``trapline rules --json`` says, in a process of its own: pytest lists tests there."""
    said = subprocess.run(
        [sys.executable, "-m", "harness.cli", "rules", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


def test_no_rule_is_without_a_state(rules: list[dict[str, Any]]) -> None:
    assert [rule["id"] for rule in rules if rule["state"] == "uncovered"] == []


def test_every_rule_with_a_test_has_a_negative_control(rules: list[dict[str, Any]]) -> None:
    assert [rule["id"] for rule in rules if rule["tests"] and not rule["negative_controls"]] == []
