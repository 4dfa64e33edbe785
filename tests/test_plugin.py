"""The plugin, by real inner sessions: verdicts, marks, results, workers."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.model.rule import Verdict
from harness.report.past_run import read_run
from harness.report.results import Result, read_results

ALL_VERDICTS = '''
import pytest
from harness.errors import HostError, LaunchFailed, WaitTimeout

pytestmark = pytest.mark.rule("MAP-01")

@pytest.fixture
def broken_before():
    raise HostError("no host")

@pytest.fixture
def broken_after():
    yield
    raise HostError("cannot put it back")

def test_good(evidence):
    """Maps are mapped.

    More.
    """
    (evidence / "note.txt").write_text("kept")

@pytest.mark.rule("MAP-02")
@pytest.mark.negative_control("MT-01")
def test_wrong():
    assert {1} == {2}, "page 3 is direct"

def test_told_to_fail():
    pytest.fail("plain words")

def test_lab_in_body():
    said = "no such host device"
    raise LaunchFailed("QEMU exited with 1", exit_status=1, stderr=said, hint="look")

def test_late():
    raise WaitTimeout("boot: did not happen")

def test_bug():
    {}["key"]

def test_lab_before(broken_before):
    pass

def test_lab_after(broken_after):
    pass

def test_not_here():
    pytest.skip("no iommu")

@pytest.mark.xfail(reason="known")
def test_known():
    assert 0

@pytest.mark.xfail(reason="known")
def test_known_but_lab_is_broken():
    raise HostError("busy")

def test_parts_that_break(subtests):
    with subtests.test("one"):
        raise HostError("busy too")
    with subtests.test("two"):
        pass

def test_parts_that_fail(subtests):
    with subtests.test("one"):
        raise HostError("busy too")
    with subtests.test("two"):
        assert 0, "row 7"
'''

EXPECTED = {
    "test_good": ("pass", ""),
    "test_wrong": ("fail", "page 3 is direct"),
    "test_told_to_fail": ("fail", "plain words"),
    "test_lab_in_body": ("error", "LaunchFailed: QEMU exited with 1"),
    "test_late": ("error", "WaitTimeout: boot: did not happen"),
    "test_bug": ("error", "KeyError: 'key'"),
    "test_lab_before": ("error", "HostError: no host"),
    "test_lab_after": ("error", "HostError: cannot put it back"),
    "test_not_here": ("skip", "no iommu"),
    "test_known": ("skip", "expected to fail: known"),
    "test_known_but_lab_is_broken": ("error", "HostError: busy"),
    "test_parts_that_break": ("error", "HostError: busy too"),
    "test_parts_that_fail": ("fail", "row 7"),
}

CONTROLS = """
import pytest
from harness.testing import must_fail

@pytest.mark.negative_control("MAP-01")
def test_hears():
    with must_fail():
        assert {1} == {2}, "page 3 is direct"
    with must_fail():
        assert {1} == {2}, "page 4 is gone"

def test_passes():
    pass

@pytest.mark.negative_control("MAP-01")
def test_half():
    with must_fail():
        assert 0, "page 5"
    with must_fail():
        pass
"""

PROVIDER = """
import pytest
from harness.errors import ConfigError, HostError

def pytest_addoption(parser):
    parser.addoption("--subject-breaks", default="")

def pytest_trapline_subject(config):
    match config.getoption("--subject-breaks"):
        case "config":
            raise ConfigError("no such QEMU", hint="build it")
        case "host":
            raise HostError("no answer")
    return {"qemu": "10.0.2", "labels": "modelled"}
"""

NO_XDIST = ("-p", "no:xdist")
SPREAD = pytest.mark.parametrize("spread", [NO_XDIST, ("-n2",)], ids=["no xdist", "two workers"])


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run an inner session in this process, with results in ``res``."""
    return pytester.runpytest_inprocess("--results=res", "-p", "no:cacheprovider", *arguments)


def results(pytester: pytest.Pytester) -> dict[str, Result]:
    found = read_results(pytester.path / "res/latest/report.jsonl")
    return {result.nodeid.partition("::")[2]: result for result in found}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("TRAPLINE_", "PYTEST_"))]:
        if name != "PYTEST_CURRENT_TEST":
            monkeypatch.delenv(name)


@SPREAD
def test_the_four_verdicts_are_kept_apart_everywhere(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, *spread)

    assert ended.ret == 1
    found = results(pytester)
    assert {name: (r.verdict, r.first_line) for name, r in found.items()} == EXPECTED
    ended.stdout.fnmatch_lines(["*trapline: 1 pass, 3 fail, 7 error, 2 skip; *summary.txt"])
    ended.stdout.fnmatch_lines(["ERROR test_a.py::test_lab_in_body - *QEMU exited*"])
    ended.stdout.fnmatch_lines(["FAILED test_a.py::test_wrong - *page 3*"])
    ended.stdout.no_fnmatch_line("FAILED *test_l*")
    junit = ET.parse(pytester.path / "res/latest/junit.xml")
    by_tag = {
        tag: {case.get("name") for case in junit.iter("testcase") if case.find(tag) is not None}
        for tag in ("failure", "error", "skipped")
    }
    names = {v: {name for name, (w, _) in EXPECTED.items() if w == v} for v in Verdict}
    assert by_tag == {
        "failure": names[Verdict.FAIL],
        "error": names[Verdict.ERROR],
        "skipped": names[Verdict.SKIP],
    }


@SPREAD
def test_each_result_names_rules_requirement_subject_and_evidence(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile(test_a=ALL_VERDICTS)

    run(pytester, *spread)

    found = results(pytester)
    assert found["test_wrong"].rules == ("MAP-01", "MAP-02")
    assert found["test_wrong"].controls == ("MT-01",)
    good = found["test_good"]
    place = Path(good.properties.pop("evidence"))  # type: ignore[attr-defined]
    assert (place / "note.txt").read_text() == "kept"
    assert place.is_relative_to((pytester.path / "res/latest").resolve() / "tests")
    assert good.properties == {
        "requirement": "Maps are mapped.",
        "subject.qemu": "10.0.2",
        "subject.labels": "modelled",
    }
    late = Path(found["test_lab_after"].properties["evidence"])
    assert "cannot put it back" in (late / "traceback.txt").read_text()
    assert "evidence" not in found["test_not_here"].properties


@SPREAD
def test_the_run_directory_holds_log_junit_summary_and_facts(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, "--qemu=./mine", *spread)

    found = (pytester.path / "res").iterdir()
    (directory,) = (p for p in found if p.is_dir() and not p.is_symlink())
    assert (pytester.path / "res/latest").resolve() == directory
    assert {path.name for path in directory.iterdir()} == {
        "report.jsonl", "junit.xml", "summary.txt", "run.json", "steps.jsonl", "tests",
    }  # fmt: skip
    steps = [json.loads(line) for line in (directory / "steps.jsonl").open()]
    assert any(one["text"] == "call test_wrong" for one in steps)
    facts = json.loads((directory / "run.json").read_text())
    assert facts["exit_status"] == 1
    assert facts["collected"] == 13
    assert facts["subject"] == {"qemu": "10.0.2", "labels": "modelled"}
    assert facts["settings"]["qemu"] == "./mine"
    assert facts["counts"] == {"pass": 1, "fail": 3, "error": 7, "skip": 2}
    text = (directory / "summary.txt").read_text()
    assert "again:    trapline run --qemu=./mine test_a.py::test_wrong" in text
    assert "FAIL test_a.py::test_wrong [MAP-01, MAP-02, MT-01]" in text
    ended.stdout.fnmatch_lines([f"trapline results: {directory}", "qemu: 10.0.2"])


@SPREAD
def test_what_a_negative_control_heard_goes_to_its_results_and_no_further(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_a=CONTROLS)

    run(pytester, *spread)

    heard = {
        "test_hears": ("page 3 is direct", "page 4 is gone"),
        "test_passes": (),
        "test_half": ("page 5",),
    }
    assert {name: result.said for name, result in results(pytester).items()} == heard
    facts = json.loads((pytester.path / "res/latest/run.json").read_text())
    assert facts["controls"] == {"test_a.py::test_hears": ["page 3 is direct", "page 4 is gone"]}
    junit = ET.parse(pytester.path / "res/latest/junit.xml")
    said = {
        str(case.get("name")): tuple(
            entry.get("value")
            for entry in case.iter("property")
            if entry.get("name") == "control_said"
        )
        for case in junit.iter("testcase")
    }
    assert said == heard


@SPREAD
def test_an_unknown_rule_is_a_usage_error_that_names_the_nearest(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.mark.rule('MAP-99')\ndef test_x(): pass\ndef test_y(): pass\n"
    )

    ended = run(pytester, *spread)

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    said = ended.stdout.str() + ended.stderr.str()
    assert "rule mark cites an unknown rule 'MAP-99'" in said
    assert "nearest: MAP-" in said
    assert "PASS" not in said


def test_a_label_goes_to_the_row_of_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\npytestmark = pytest.mark.label('device modelled')\ndef test_x(): pass\n"
    )

    run(pytester)

    (result,) = read_results(pytester.path / "res/latest/report.jsonl")
    assert result.properties["label"] == "device modelled"


@pytest.mark.parametrize(
    "mark", ["rule()", "negative_control(id='MAP-01')", "rule(7)", "label()", "label(7)"]
)
def test_a_mark_with_wrong_arguments_is_a_usage_error(
    pytester: pytest.Pytester, mark: str
) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.{mark}\ndef test_x(): pass\n")

    ended = run(pytester, "--collect-only")

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_x" in ended.stderr.str()
    assert not (pytester.path / "res").exists()


def test_listing_makes_no_results_and_asks_nobody_about_the_subject(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, "--collect-only", "-q", "--subject-breaks=config")

    assert ended.ret == 0
    assert not (pytester.path / "res").exists()


def test_a_wrong_subject_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile("def test_x(): pass")

    ended = run(pytester, "--subject-breaks=config")

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["ERROR: no such QEMU", "*next: build it"])
    assert list((pytester.path / "res").iterdir()) == []


def test_a_wrong_subject_is_told_before_tests_also_where_no_header_is_shown(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile("def test_x(): open('ran', 'w').close()")

    ended = run(pytester, "-q", "--subject-breaks=config")

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    assert not (pytester.path / "ran").exists()


def test_results_that_cannot_be_kept_are_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(): pass")
    (pytester.path / "res").touch()

    ended = run(pytester)

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["ERROR: results cannot be kept in *", "*next: name a directory*"])


def test_a_host_that_does_not_answer_is_said_in_the_header(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile("def test_x(): pass")

    ended = run(pytester, "--subject-breaks=host")

    assert ended.ret == 0
    ended.stdout.fnmatch_lines(["subject unknown: no answer"])


NEEDING = (
    PROVIDER
    + """
def pytest_trapline_needs_subject(item):
    return "needing" in item.name
"""
)


@SPREAD
def test_no_test_is_run_where_one_needs_a_host_that_does_not_answer(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makeconftest(NEEDING)
    pytester.makepyfile("""
        def test_pure(): open("ran", "w").close()
        def test_needing(): open("ran", "w").close()
        """)

    ended = run(pytester, "--subject-breaks=host", *spread)

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    said = ended.stderr if spread == NO_XDIST else ended.stdout
    said.fnmatch_lines(["ERROR: no answer", "*next: correct what names it*"])
    assert not (pytester.path / "ran").exists()
    [kept] = (path for path in (pytester.path / "res").iterdir() if path.is_dir())
    assert "subject unknown: no answer" in " ".join((kept / "summary.txt").read_text().split())
    assert read_run(kept).lacks.startswith("refused at the start: no answer")


@SPREAD
def test_a_selection_that_needs_no_host_is_run_without(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makeconftest(NEEDING)
    pytester.makepyfile("def test_pure(): pass\ndef test_needing(): pass")

    assert run(pytester, "--subject-breaks=host", "-k", "pure", *spread).ret == 0
    assert list(results(pytester)) == ["test_pure"]


@SPREAD
def test_a_run_that_stops_at_the_first_failure_is_not_whole(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makepyfile("def test_x(): assert 0\ndef test_y(): pass\ndef test_z(): pass")

    run(pytester, "-x", *spread)

    assert not read_run(pytester.path / "res").is_whole


def test_an_interrupt_that_breaks_something_ends_the_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PROVIDER)
    pytester.makepyfile("""
        def test_interrupted():
            try:
                raise KeyboardInterrupt
            finally:
                raise RuntimeError("release unlocked lock")

        def test_next():
            pass
    """)

    ended = run(pytester)

    assert ended.ret == pytest.ExitCode.INTERRUPTED
    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines(["*Interrupted*"])


def test_a_broken_lab_is_told_in_its_own_words(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, "-k", "lab_in_body", "-p", "no:xdist")

    ended.stdout.fnmatch_lines(
        [
            "*ERROR at call of test_lab_in_body*",
            "QEMU exited with 1",
            "  said: no such host device",
            "  next: look",
            "*raised through*",
            "test_a.py:*: in test_lab_in_body",
        ]
    )
    ended.stdout.no_fnmatch_line("*raise LaunchFailed*")


def test_a_failed_assertion_says_its_text_before_the_traceback(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, "-k", "wrong", "-p", "no:xdist")

    ended.stdout.fnmatch_lines(
        ["*test_wrong*", "page 3 is direct", "*traceback*", "test_a.py:*: in test_wrong"]
    )
    ended.stdout.no_fnmatch_line("*_pytest*")


def test_a_chosen_traceback_style_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, "-k", "lab_in_body", "--tb=long")

    ended.stdout.fnmatch_lines([">*raise LaunchFailed*"])


@SPREAD
def test_a_line_per_finished_test_has_verdict_seconds_and_rules(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_a=ALL_VERDICTS)

    ended = run(pytester, *spread)

    lines = [line for line in ended.stdout.lines if " s  test_a.py::" in line]
    assert len(lines) == len(EXPECTED)
    ended.stdout.fnmatch_lines(["*PASS * s  test_a.py::test_good  [[]MAP-01]"])
    ended.stdout.fnmatch_lines(["*FAIL * [[]MAP-01 MAP-02; controls MT-01]  page 3 is direct"])


def test_quiet_is_quiet(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a="def test_x(): pass\ndef test_y(): pass\n")

    ended = run(pytester, "-q")

    assert ended.ret == 0
    ended.stdout.fnmatch_lines(["..*100%*"])
    ended.stdout.no_fnmatch_line("PASS*")


def test_collecting_nothing_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(): pass")

    ended = run(pytester, "-k", "nothing_is_called_so")

    assert ended.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_rule_selects_its_tests_and_controls(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=ALL_VERDICTS)

    run(pytester, "--rule=MT")

    assert set(results(pytester)) == {"test_wrong"}


def test_a_test_marked_full_runs_unless_it_is_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        def test_short(): pass
        @pytest.mark.full
        def test_long(): pass
        """
    )

    run(pytester, "--leave-out-full").assert_outcomes(passed=1, deselected=1)
    assert set(results(pytester)) == {"test_short"}
    run(pytester).assert_outcomes(passed=2)


def test_own_places_for_log_and_junit_are_respected(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(): assert 0")

    run(pytester, "--report-log=own.jsonl", "--junitxml=own.xml", "-p", "no:xdist")

    latest = pytester.path / "res/latest"
    assert (pytester.path / "own.xml").is_file()
    assert not (latest / "junit.xml").exists()
    assert [r.verdict for r in read_results(latest / "report.jsonl")] == [Verdict.FAIL]


def test_a_worker_that_dies_is_an_error_of_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import os\ndef test_x(): os._exit(3)\ndef test_y(): pass")

    run(pytester, "-n1")

    found = results(pytester)
    assert found["test_x"].verdict is Verdict.ERROR
    assert "crashed" in found["test_x"].message
    assert found["test_y"].verdict is Verdict.PASS


def test_a_hanging_test_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import threading\ndef test_x(): threading.Event().wait()")

    run(pytester, "--timeout=0.2", "-p", "no:xdist")

    assert results(pytester)["test_x"].verdict is Verdict.ERROR


def test_a_wrong_settings_file_stops_before_collection(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", trapline="colour = 'red'")
    pytester.makepyfile("def test_x(): pass")

    ended = run(pytester)

    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["*colour*"])


@SPREAD
def test_settings_reach_the_tests(pytester: pytest.Pytester, spread: tuple[str, ...]) -> None:
    pytester.makefile(".toml", trapline="kernel = 'mine'")
    pytester.makepyfile(
        """
        from harness.settings import SETTINGS

        def test_x(pytestconfig):
            found = pytestconfig.stash[SETTINGS]
            assert (found.qemu, found.kernel) == ("./q", "mine")
        """
    )

    assert run(pytester, "--qemu=./q", *spread).ret == 0


def test_in_other_projects_the_plugin_sleeps(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from harness.errors import HostError

        @pytest.mark.rule("a word of that project")
        def test_x(evidence):
            raise HostError("theirs")
        """
    )

    ended = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    ended.assert_outcomes(failed=1)
    ended.stdout.no_fnmatch_line("*trapline results*")
    assert not any(
        path.is_dir() and path.name in ("res", "results") for path in pytester.path.iterdir()
    )


def test_the_ini_value_wakes_it_up(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrapline_results = kept")
    pytester.makeconftest("def pytest_trapline_subject(config): return {}")
    pytester.makepyfile("def test_x(): pass")

    pytester.runpytest_subprocess("-p", "no:cacheprovider")

    assert (pytester.path / "kept/latest/summary.txt").is_file()


def test_the_ini_value_alone_keeps_nothing_of_tests_that_judge_nothing(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\ntrapline_results = kept")
    pytester.makepyfile("def test_x(): pass")

    pytester.runpytest_subprocess("-p", "no:cacheprovider")

    assert not (pytester.path / "kept").exists()
