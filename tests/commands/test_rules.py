"""``trapline rules``: tests, controls and verdicts of each rule."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from harness.commands.places import Places
from harness.commands.rules import (
    as_json,
    as_table,
    controls_lines,
    counts_line,
    rule_coverage,
)
from harness.commands.run import RunRequest, run_suites
from harness.errors import ConfigError
from harness.model.rule import RuleState, Verdict
from harness.rules import load_rules

SUITE = """
import pytest
from harness.testing import must_fail

@pytest.mark.rule("MAP-01", "MAP-02")
def test_maps(): pass

@pytest.mark.negative_control("MAP-01")
def test_maps_can_be_wrong():
    with must_fail():
        assert 0, "page 3 is direct"

@pytest.mark.negative_control("MAP-03")
def test_a_control_that_does_not_hold():
    with must_fail():
        pass

@pytest.mark.rule("MAP-03")
def test_rounding(): assert 0
"""
OWN = "import pytest\n@pytest.mark.rule('MAP-04')\ndef test_model(): pass\n"

MAPS = "suites/vfio_pci/test_x.py::test_maps"
CONTROL = "suites/vfio_pci/test_x.py::test_maps_can_be_wrong"
OTHER = "suites/vfio_pci/test_x.py::test_a_control_that_does_not_hold"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    (tmp_path / "suites/vfio_pci").mkdir(parents=True)
    (tmp_path / "suites/vfio_pci/test_x.py").write_text(SUITE)
    (tmp_path / "suites/vfio_pci/conftest.py").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").touch()
    (tmp_path / "tests/test_own.py").write_text(OWN)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest]\naddopts = ["--import-mode=importlib"]\n'
    )
    found = Places(tmp_path, tmp_path / "results", is_checkout=True)
    monkeypatch.setattr(Places, "find", classmethod(lambda _: found))
    monkeypatch.chdir(tmp_path)
    return found


def states(**options: object) -> dict[str, RuleState]:
    return {one.rule.id: one.state for one in rule_coverage(**options)}  # type: ignore[arg-type]


def test_before_any_run_tests_are_known_and_verdicts_are_not() -> None:
    found = states(section="MAP")

    assert len(found) == 42
    assert found["MAP-01"] is RuleState.NOT_RUN
    assert found["MAP-04"] is RuleState.PURE
    assert found["MAP-05"] is RuleState.UNCOVERED


def test_after_a_run_each_rule_has_its_state() -> None:
    run_suites(RunRequest())

    found = {one.rule.id: one for one in rule_coverage(section="MAP")}

    assert found["MAP-01"].state is RuleState.EXECUTED
    assert found["MAP-01"].tests == (MAPS,)
    assert found["MAP-01"].negative_controls == (CONTROL,)
    assert found["MAP-01"].last_verdict is Verdict.PASS
    assert found["MAP-02"].state is RuleState.CONTROL_MISSING
    assert found["MAP-03"].state is RuleState.FAILED


def test_an_older_run_can_be_asked_for(places: Places) -> None:
    first = run_suites(RunRequest(selection=("MAP-01",))).directory
    run_suites(RunRequest(selection=("MAP-03",)))

    assert states(section="MAP-01") == {"MAP-01": RuleState.NOT_RUN}
    assert states(section="MAP-01", run=first) == {"MAP-01": RuleState.EXECUTED}


def test_uncovered_rules_alone() -> None:
    found = states(section="MAP", uncovered=True)

    assert len(found) == 38
    assert set(found.values()) == {RuleState.UNCOVERED}


def test_without_a_section_all_rules_are_there() -> None:
    assert set(states()) == set(load_rules())


def test_json_has_exactly_the_promised_keys() -> None:
    objects = json.loads(as_json(rule_coverage(section="MAP")))

    assert [list(one) for one in objects] == [
        [
            "id", "statement", "source", "applicability",
            "state", "tests", "negative_controls", "last_verdict",
        ]
    ] * 42  # fmt: skip
    assert objects[0]["state"] == "not-run"
    assert objects[0]["tests"] == [MAPS]
    assert objects[0]["last_verdict"] is None


def test_the_table_and_its_last_line() -> None:
    found = rule_coverage(section="MAP")
    console = Console(width=120, record=True, file=io.StringIO())

    console.print(as_table(found))

    assert "MAP-05" in console.export_text()
    assert counts_line(found) == "42 rules: 3 not-run, 1 pure, 38 uncovered"


def test_controls_are_shown_with_what_they_said_last() -> None:
    before = controls_lines(rule_coverage(section="MAP"))
    run_suites(RunRequest())

    after = controls_lines(rule_coverage(section="MAP"))

    assert before[1::2] == [f"  not run: {CONTROL}", f"  not run: {OTHER}"]
    assert after[0].startswith("MAP-01 (executed): ")
    assert after[1:3] == [f"  pass: {CONTROL}", "    said: page 3 is direct"]
    assert after[3].startswith("MAP-03 (failed): ")
    assert after[4:] == [
        f"  fail: {OTHER}",
        "    said: the check passed on a subject that breaks the rule: it cannot fail",
    ]


def test_json_has_what_controls_said_where_it_is_asked_for() -> None:
    run_suites(RunRequest())

    (found,) = json.loads(as_json(rule_coverage(section="MAP-01"), controls=True))

    assert found["controls"][0] == {
        "test": CONTROL, "verdict": "pass", "said": ["page 3 is direct"],
    }  # fmt: skip


def test_a_module_that_cannot_be_imported_is_named(places: Places) -> None:
    (places.suites / "test_broken.py").write_text("import no_such_module")

    with pytest.raises(ConfigError, match="no_such_module"):
        rule_coverage(section="MAP")


def test_a_wrong_mark_is_named(places: Places) -> None:
    (places.suites / "test_odd.py").write_text(OWN.replace("MAP-04", "MAP-77"))

    with pytest.raises(ConfigError, match="MAP-77"):
        rule_coverage(section="MAP")


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no results"):
        rule_coverage(section="MAP", run=tmp_path)
