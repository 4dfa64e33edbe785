"""``trapline doctor`` for real, and what it learns from the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands import doctor
from harness.commands.places import Places
from harness.commands.rules import Citations
from harness.model.rule import RuleState
from harness.rules import load_rules

ROOT = Path(__file__).resolve().parents[2]


def test_command_prints_json_that_agrees_with_its_exit_status(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip

    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["works"] else 1), done.stderr
    assert len(said["rules"]) == len(load_rules())
    assert sum(said["rule_counts"]["virtual"].values()) == len(said["rules"])
    assert said["cpu"]["architecture"] == os.uname().machine


def test_rules_are_remembered_until_a_test_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path))
    asked = []

    def collect(places: Places) -> Citations:
        asked.append(places)
        found = Citations()
        found.tests["MAP-01"] = ["t"]
        found.is_suite["t"] = True
        return found

    monkeypatch.setattr(doctor, "collect", collect)
    first = doctor.rule_facts(Places.find())
    second = doctor.rule_facts(Places.find())

    assert first == second
    assert len(asked) == 1
    assert {f.id: f.state for f in first}["MAP-01"] is RuleState.NOT_RUN


def test_least_demanding_test_of_a_rule_counts() -> None:
    citations = Citations()
    citations.tests["MAP-01"] = ["a", "b"]
    citations.is_suite |= {"a": True, "b": True}
    citations.fixtures |= {"a": ("nested", "resident", "virtual_host"), "b": ("free", "resident")}

    fact = doctor.fact_of(load_rules()["MAP-01"], citations)

    assert fact.needs == ("devices",)
    assert fact.only == ()


def test_rule_whose_tests_are_all_of_one_device_needs_it() -> None:
    citations = Citations()
    citations.tests["MAP-01"] = ["a", "b", "own"]
    citations.is_suite |= {"a": True, "b": True, "own": False}
    citations.device |= {"a": "igb", "b": "nvme"}

    assert doctor.fact_of(load_rules()["MAP-01"], citations).only == ("igb", "nvme")
