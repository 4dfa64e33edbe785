"""``trapline rules``: tests, controls and verdicts of each rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands.matrix import DONE
from harness.commands.places import Places
from harness.commands.rules import rule_coverage, runs_that_count
from harness.commands.run import RunRequest, run_suites
from harness.errors import ConfigError
from harness.model.rule import RuleState, Verdict
from harness.report.coverage import Coverage
from harness.report.coverage_view import as_json, controls_lines
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


def ran(*selection: str) -> Path:
    """Run what *selection* names, and return the run."""
    directory = run_suites(RunRequest(selection=selection)).directory
    assert directory is not None
    return directory


def covered(*runs: Path, **options: Any) -> list[Coverage]:
    """What the command knows, of *runs* or the last one."""
    return rule_coverage(runs_that_count(runs), **options)


def states(*runs: Path, **options: Any) -> dict[str, RuleState]:
    return {one.rule.id: one.state for one in covered(*runs, **options)}


def test_before_any_run_tests_are_known_and_verdicts_are_not() -> None:
    found = states(section="MAP")

    assert len(found) == 42
    assert found["MAP-01"] is RuleState.NOT_RUN
    assert found["MAP-04"] is RuleState.PURE
    assert found["MAP-05"] is RuleState.UNCOVERED


def test_after_a_run_each_rule_has_its_state() -> None:
    ran()

    found = {one.rule.id: one for one in covered(section="MAP")}

    assert found["MAP-01"].state is RuleState.EXECUTED
    assert found["MAP-01"].tests == (MAPS,)
    assert found["MAP-01"].negative_controls == (CONTROL,)
    assert found["MAP-01"].last_verdict is Verdict.PASS
    assert found["MAP-02"].state is RuleState.CONTROL_MISSING
    assert found["MAP-03"].state is RuleState.FAILED


def test_an_older_run_can_be_asked_for(places: Places) -> None:
    first = ran("MAP-01")
    ran("MAP-03")

    assert states(section="MAP-01") == {"MAP-01": RuleState.NOT_RUN}
    assert states(first, section="MAP-01") == {"MAP-01": RuleState.EXECUTED}


def test_controls_are_told_with_the_run_they_are_from_and_where_else_to_look() -> None:
    first = ran("vfio_pci")
    last = ran("MAP-03")

    def told(*options: str) -> str:
        return CliRunner().invoke(app, ["rules", "MAP-01", "--controls", *options]).output

    assert last.name in told()
    assert "not run: in none of the runs above; another counts" in told()
    assert first.name in told("--run", str(first))
    assert "not run" not in told("--run", str(first))


def test_uncovered_rules_alone() -> None:
    found = states(section="MAP", uncovered=True)

    assert len(found) == 38
    assert set(found.values()) == {RuleState.UNCOVERED}


def test_without_a_section_all_rules_are_there() -> None:
    assert set(states()) == set(load_rules())


def test_what_one_run_left_out_another_may_have() -> None:
    first = ran("MAP-01")
    second = ran("MAP-03")

    found = {one.rule.id: one for one in covered(first, second, section="MAP")}

    assert found["MAP-01"].state is RuleState.EXECUTED
    assert found["MAP-01"].runs == (0,)
    assert found["MAP-03"].state is RuleState.FAILED
    assert found["MAP-03"].runs == (1,)


def test_a_directory_of_results_is_its_last_run_and_no_run_counts_twice(places: Places) -> None:
    ran("MAP-03")
    last = ran("MAP-01")

    found = runs_that_count((places.results, last))

    assert [run.path for run in found.runs] == [last]


def test_a_matrix_is_all_its_runs(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run(f"m/{cell}/1/{cell}", {MAPS: "pass"}) for cell in "ab"]
    for run in runs:
        note = {"run": run.name, "stamps": {}}
        (run.parent / DONE).write_text(json.dumps(note))
    make_run("m/c/1/killed", {MAPS: "fail: half a run"}, ended=False)

    found = runs_that_count((tmp_path / "m",))

    assert [run.path for run in found.runs] == runs
    assert [run.path for run in runs_that_count((tmp_path / "m/b",)).runs] == runs[1:]


def test_controls_are_shown_with_what_they_said_last() -> None:
    before = list(controls_lines(covered(section="MAP")))
    ran()

    after = list(controls_lines(covered(section="MAP")))

    assert before[1::2] == [f"  not run: {CONTROL}", f"  not run: {OTHER}"]
    assert after[0].startswith("MAP-01 (executed): ")
    assert after[1:3] == [f"  pass: {CONTROL}", "    said: page 3 is direct"]
    assert after[3].startswith("MAP-03 (failed): ")
    assert after[4:] == [
        f"  fail: {OTHER}",
        "    said: the check passed on a subject that breaks the rule: it cannot fail",
    ]


def test_json_has_what_controls_said_where_it_is_asked_for() -> None:
    ran()

    run = runs_that_count()
    (found,) = json.loads(as_json(rule_coverage(run, section="MAP-01"), run, controls=True))

    assert found["controls"][0] == {
        "test": CONTROL, "verdict": "pass", "said": ["page 3 is direct"],
    }  # fmt: skip


def test_a_module_that_cannot_be_imported_is_named(places: Places) -> None:
    (places.suites / "test_broken.py").write_text("import no_such_module")

    with pytest.raises(ConfigError, match="no_such_module"):
        covered(section="MAP")


def test_a_wrong_mark_is_named(places: Places) -> None:
    (places.suites / "test_odd.py").write_text(OWN.replace("MAP-04", "MAP-77"))

    with pytest.raises(ConfigError, match="MAP-77"):
        covered(section="MAP")


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run in"):
        covered(tmp_path / "suites", section="MAP")
