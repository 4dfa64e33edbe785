"""Tests that the lab broke are run again; no other is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.report.results import read_results
from harness.suite_repeat import MOST, stops_its_guests

pytest_plugins = ("pytester",)

TCG = "tcg (it is emulated)"
TESTS = """
    import pytest
    from harness.errors import KvmStopped, MachineDied
    from harness.suite_repeat import repeat_what_the_lab_broke

    left = {name: times for name, times in %(times)s.items()}

    def stop(name, suberror=3):
        if left[name] > 0:
            left[name] -= 1
            raise KvmStopped("guest: stopped: Suberror", seen="", evidence=None, suberror=suberror)

    def test_once():
        stop("once")

    def test_in_its_set_up(broken_fixture):
        pass

    @pytest.fixture
    def broken_fixture():
        stop("set_up")

    def test_always():
        stop("always")

    def test_other_suberror():
        stop("other", suberror=1)

    def test_that_fails():
        assert left is None

    def test_that_errs():
        raise MachineDied("guest: gone")
"""
CONFTEST = """
    from harness.suite_repeat import repeat_what_the_lab_broke

    def pytest_collection_modifyitems(items):
        repeat_what_the_lab_broke(items, {subject})
"""


def subject(kernel: str = "7.2.12", *, host: str = "virtual", accel: str = TCG) -> dict[str, str]:
    return {"host": host, "accelerator": accel, "host kernel": kernel}


def test_hosts_that_stop_their_guests() -> None:
    assert stops_its_guests(subject())
    assert stops_its_guests(subject("6.14.0"))
    assert stops_its_guests(subject("7.3.0-rc7"))


def test_hosts_that_do_not() -> None:
    assert not stops_its_guests(subject("6.13.9"))
    assert not stops_its_guests(subject(accel="kvm (it runs)"))
    assert not stops_its_guests(subject(host="ssh://root@lab7"))
    assert not stops_its_guests({})


def run(pytester: pytest.Pytester, facts: dict[str, str], *options: str) -> Path:
    pytester.makeconftest(CONFTEST.format(subject=facts))
    times = {"once": 1, "set_up": 1, "always": 99, "other": 99}
    pytester.makepyfile(test_it=TESTS % {"times": times})
    pytester.runpytest_subprocess("--results", "results", "-p", "no:cacheprovider", *options)
    return pytester.path / "results" / "latest"


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "workers"])
def test_what_the_lab_broke_is_run_again(pytester: pytest.Pytester, options: tuple[str]) -> None:
    found = run(pytester, subject(), *options)

    results = {r.nodeid.rpartition("::")[2]: r for r in read_results(found / "report.jsonl")}
    assert {name: (str(r.verdict), len(r.again)) for name, r in results.items()} == {
        "test_once": ("pass", 1),
        "test_in_its_set_up": ("pass", 1),
        "test_always": ("error", MOST),
        "test_other_suberror": ("error", 0),
        "test_that_fails": ("fail", 0),
        "test_that_errs": ("error", 0),
    }
    facts = json.loads((found / "run.json").read_text())
    assert facts["counts"] == {"pass": 2, "fail": 1, "error": 3, "skip": 0}
    summary = (found / "summary.txt").read_text()
    assert "Run again, for what the lab did (3)" in summary
    assert "test_it.py::test_once: KvmStopped: guest: stopped: Suberror" in summary


def test_the_row_says_what_broke_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.format(subject=subject()))
    pytester.makepyfile(test_it=TESTS % {"times": {"once": 1}})

    done = pytester.runpytest_subprocess("--results", "results", "-k", "test_once")

    done.stdout.fnmatch_lines(["PASS*test_once*(run again, 1: KvmStopped: guest: stopped*)"])
    assert done.ret == 0


def test_on_other_hosts_nothing_is_run_again(pytester: pytest.Pytester) -> None:
    found = run(pytester, subject("6.12.107"))

    results = read_results(found / "report.jsonl")
    assert not any(result.again for result in results)
    assert sum(str(result.verdict) == "error" for result in results) == 5
