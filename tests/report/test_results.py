"""Reading a report log back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ParseError
from harness.model.rule import Verdict
from harness.report.results import message_of, read_results


def report(when: str, outcome: str = "passed", **more: Any) -> dict[str, Any]:
    return {
        "$report_type": "TestReport",
        "nodeid": "suites/a.py::t",
        "when": when,
        "outcome": outcome,
        "duration": 0.5,
        "longrepr": None,
        "user_properties": [],
        **more,
    }


def log(path: Path, *entries: dict[str, Any]) -> Path:
    file = path / "report.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def test_phases_become_one_result_with_rules_and_properties(tmp_path: Path) -> None:
    properties = [
        ["rules", "MAP-01 MAP-02"],
        ["negative_controls", "MAP-03"],
        ["requirement", "Tables trap."],
        ["subject.qemu", "10.0"],
    ]
    file = log(
        tmp_path,
        {"$report_type": "SessionStart", "pytest_version": "9"},
        report("setup"),
        report("call", worker_id="gw1"),
        report("teardown", user_properties=properties),
    )

    (result,) = read_results(file)

    assert result.verdict is Verdict.PASS
    assert result.seconds == 1.5
    assert result.rules == ("MAP-01", "MAP-02")
    assert result.controls == ("MAP-03",)
    assert result.properties == {"requirement": "Tables trap.", "subject.qemu": "10.0"}
    assert result.worker == "gw1"


def test_the_verdict_that_the_plugin_attached_counts(tmp_path: Path) -> None:
    crash = {"reprcrash": {"message": "harness.errors.HostError: no host\n  said: x"}}
    file = log(tmp_path, report("call", "failed", verdict="error", longrepr=crash))

    (result,) = read_results(file)

    assert result.verdict is Verdict.ERROR
    assert result.first_line == "HostError: no host"


def test_a_failed_subtest_lends_its_message_to_the_test(tmp_path: Path) -> None:
    part = report("call", "failed", verdict="fail", longrepr={"reprcrash": {"message": "row 3"}})
    file = log(
        tmp_path,
        part | {"$report_type": "SubTestReport"},
        report("call", "failed", verdict="fail", longrepr="contains 1 failed subtest"),
    )

    (result,) = read_results(file)

    assert (result.verdict, result.message) == (Verdict.FAIL, "row 3")


def test_each_saying_of_a_control_is_kept_once(tmp_path: Path) -> None:
    properties = [["control_said", "page 3"], ["control_said", "page 4"], ["label", "modelled"]]
    file = log(
        tmp_path,
        report("setup", user_properties=properties[2:]),
        report("call", user_properties=properties),
        report("teardown", user_properties=properties),
    )

    (result,) = read_results(file)

    assert result.said == ("page 3", "page 4")
    assert result.properties == {"label": "modelled"}


def test_a_crashed_worker_is_an_error(tmp_path: Path) -> None:
    file = log(tmp_path, report("setup"), report("???", "failed", longrepr="worker crashed"))

    assert read_results(file)[0].verdict is Verdict.ERROR


def test_a_module_that_cannot_be_collected_is_an_error(tmp_path: Path) -> None:
    entry = {
        "$report_type": "CollectReport",
        "nodeid": "suites/a.py",
        "outcome": "failed",
        "longrepr": "ImportError: no x",
    }

    (result,) = read_results(log(tmp_path, entry))

    assert (result.nodeid, result.verdict) == ("suites/a.py", Verdict.ERROR)
    assert result.first_line == "ImportError: no x"


def test_a_cut_last_line_is_passed_over(tmp_path: Path) -> None:
    file = log(tmp_path, report("call"))
    file.write_text(file.read_text() + '{"$report_ty')

    assert len(read_results(file)) == 1


def test_a_test_whose_body_was_interrupted_has_no_result(tmp_path: Path) -> None:
    other = {"nodeid": "suites/a.py::cut"}
    file = log(tmp_path, report("setup"), report("call"), report("setup") | other)

    assert [one.nodeid for one in read_results(file)] == ["suites/a.py::t"]


def test_a_test_that_was_to_be_run_again_and_was_not_has_no_result(tmp_path: Path) -> None:
    file = log(tmp_path, report("setup"), report("call"), report("teardown", "rerun"))

    assert read_results(file) == []


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_a_test_that_ended_in_its_set_up_has_one(tmp_path: Path, outcome: str) -> None:
    file = log(tmp_path, report("setup", outcome))

    assert len(read_results(file)) == 1


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = log(tmp_path, report("call"))
    file.write_text("nonsense\n" + file.read_text())

    with pytest.raises(ParseError, match=r"report\.jsonl:1"):
        read_results(file)


@pytest.mark.parametrize(
    ("longrepr", "message"),
    [
        (None, ""),
        (["a.py", 3, "Skipped: no iommu"], "no iommu"),
        ({"reprcrash": {"message": "AssertionError: page 3\nassert x"}}, "page 3\nassert x"),
        ({"reprcrash": None}, ""),
        ("Failed: plain", "plain"),
        ("harness.errors.WaitTimeout: boot", "WaitTimeout: boot"),
        ("the file a.b.C is there", "the file a.b.C is there"),
    ],
)
def test_messages_come_without_their_wrapping(longrepr: object, message: str) -> None:
    assert message_of(longrepr) == message
